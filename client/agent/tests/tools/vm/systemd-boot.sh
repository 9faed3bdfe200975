#!/bin/sh
# systemd-boot.sh UNPACKED: in the current directory, `disk.img`: an ESP with systemd-boot and an
# entry for each slot; `vars.fd`.
set -eu
unpacked=$1
mkdir -p root/bin root/proc esp/EFI/BOOT esp/loader/entries
cp /bin/busybox root/bin/
for name in $(busybox --list | grep -vx busybox); do ln -s busybox root/bin/$name; done
cat > root/init <<'X'
#!/bin/sh
export PATH=/bin
mount -t proc p /proc
echo "VM slot $(sed 's/.*tidings.slot=\([A-Za-z]*\).*/\1/' /proc/cmdline)"
echo o > /proc/sysrq-trigger
sleep 60
X
chmod +x root/init
(cd root && find . | cpio -o -H newc 2> /dev/null | gzip -1) > esp/i
cp "$unpacked"/boot/vmlinuz-*-cloud-amd64 esp/k
cp /usr/lib/systemd/boot/efi/systemd-bootx64.efi esp/EFI/BOOT/BOOTX64.EFI
printf 'default tidings-*\ntimeout 0\n' > esp/loader/loader.conf
entry() {
    {
        printf 'title %s\nsort-key %s\nversion %s\n' "$2" "$3" "$4"
        printf 'linux /k\ninitrd /i\noptions console=ttyS0 quiet no_timer_check tidings.slot=%s\n' "$2"
    } > "esp/loader/entries/$1.conf"
}
entry tidings-A A tidings 1
entry tidings-B B tidings 0
# Sorts before both, and is none of ours.
entry other other a 9
truncate -s 64M disk.img
/sbin/mkfs.vfat -F 32 disk.img > /dev/null
mcopy -s -i disk.img esp/* ::
cp /usr/share/OVMF/OVMF_VARS_4M.fd vars.fd
