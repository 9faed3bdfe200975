#!/bin/sh
# make.sh UNPACKED LIB: in the current directory, `disk.img`: GRUB, /boot, and two slots.
# UNPACKED has Debian's packages of two kernels, which differ, so that it is seen which one runs.
set -eu
unpacked=$1 lib=$2 here=$(dirname "$0") grub=/usr/lib/grub/i386-pc
tree() {
    release=$1 root=root-$1
    mkdir -p $root/bin $root/etc/tidings $root/proc $root/sys $root/dev $root/boot \
        $root/lib/tidings $root/lib/modules/$release
    cp /bin/busybox $root/bin/
    for name in $(busybox --list | grep -vx busybox); do ln -sf busybox $root/bin/$name; done
    for program in grub-editenv kexec; do
        cp "$(command -v $program)" $root/bin/
        for library in $(ldd "$(command -v $program)" | grep -oE '/[^ ]+'); do
            mkdir -p "$root${library%/*}"
            cp -L "$library" "$root$library"
        done
    done
    cp -rL "$lib/." $root/lib/tidings/
    cat > $root/etc/tidings/slots.conf <<'X'
SLOT_A=/dev/vda2
SLOT_B=/dev/vda3
kexec_load() {
    kexec -s -l /boot/$1/vmlinuz --initrd=/boot/$1/initrd \
        --command-line="console=ttyS0 quiet no_timer_check panic=2 tidings.slot=$1"
}
X
    printf 'LOADER=grub\nGRUBENV=/boot/grub/grubenv\n' > $root/etc/tidings/loader.conf
    for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci \
        virtio_blk crc16 mbcache jbd2 ext4 crc32c_generic libcrc32c watchdog i6300esb; do
        find "$unpacked/lib/modules/$release/kernel" -name "$module.ko" \
            -exec cp {} $root/lib/modules/$release/ \;
    done
    cp "$unpacked/lib/modules/$release"/modules.[bo]* $root/lib/modules/$release/
    depmod -b $root "$release"
    cp "$here/init" "$here/story" $root/
    cp "$here/systemctl" $root/bin/
    chmod +x $root/init $root/story $root/bin/systemctl
    (cd $root && find . | cpio -o -H newc 2> /dev/null | gzip -1) > "boot/$2/initrd"
    cp "$unpacked/boot/vmlinuz-$release" "boot/$2/vmlinuz"
}
rm -rf boot root-* disk.img
mkdir -p boot/A boot/B boot/grub boot/payloads boot/releases
cloud=$(cd "$unpacked/boot" && ls | sed -n 's/^vmlinuz-\(.*-cloud-amd64\)$/\1/p' | head -n 1)
full=$(cd "$unpacked/boot" && ls | sed -n 's/^vmlinuz-\(.*[0-9]-amd64\)$/\1/p' | head -n 1)
tree "$cloud" A
tree "$full" B
payload() { { echo "$2 $3"; head -c 1000000 /dev/urandom; } > boot/payloads/$1; }
payload 2 panics reboot
payload 3 hangs reboot
payload 4 serves reboot
payload 5 serves kexec
payload 6 panics kexec
echo 2 > boot/serial
cat > boot/grub/grub.cfg <<'X'
serial --unit=0
terminal_output serial
load_env
if [ "$next" ]; then set slot="$next"; set next=; save_env next; else set slot="$primary"; fi
echo "VM grub boots $slot"
linux /$slot/vmlinuz console=ttyS0 quiet no_timer_check panic=2 tidings.slot=$slot
initrd /$slot/initrd
boot
X
grub-editenv boot/grub/grubenv create
grub-editenv boot/grub/grubenv set primary=A
truncate -s 132M disk.img
printf 'label: dos\nstart=2048,size=128M,type=83\nsize=1100K,type=83\nsize=1100K,type=83\n' |
    /sbin/sfdisk -q disk.img
/sbin/mke2fs -q -t ext4 -d boot -E offset=1048576 disk.img 128M
grub-mkimage -O i386-pc -p '(hd0,msdos1)/grub' -o core.img biosdisk part_msdos ext2 loadenv test \
    normal linux serial terminal echo configfile reboot
# The boot sector looks for the rest in the sectors after it.
dd if=$grub/boot.img of=disk.img bs=440 count=1 conv=notrunc 2> /dev/null
dd if=core.img of=disk.img bs=512 seek=1 conv=notrunc 2> /dev/null
