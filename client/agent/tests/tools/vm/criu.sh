#!/bin/sh
# criu.sh UNPACKED TREE LIB UNITS: in the current directory, `disk.img`: a machine with systemd, of
# TREE, and two kernels of UNPACKED in /boot; `kernel` and `initrd` of the first one.
set -eu
unpacked=$1 tree=$2 lib=$3 units=$4 here=$(dirname "$0")
cp -a "$tree" root
mkdir -p root/usr/lib/tidings
cp -r "$lib/." root/usr/lib/tidings/
cp "$here/criu-counter" root/usr/local/bin/counter
cp "$here/criu-story" root/usr/local/bin/story
chmod +x root/usr/local/bin/*
kernel() {
    release=$1 i=initrd-$2
    modules=$unpacked/lib/modules/$release
    mkdir -p $i/bin $i/proc $i/sys $i/dev $i/root "$i/lib/modules/$release" root/boot/$2 \
        "root/lib/modules/$release"
    cp /bin/busybox $i/bin/
    for name in $(busybox --list | grep -vx busybox); do ln -s busybox $i/bin/$name; done
    for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci \
        virtio_blk crc16 mbcache jbd2 ext4 crc32c_generic libcrc32c; do
        find "$modules/kernel" -name "$module.ko" -exec cp {} "$i/lib/modules/$release/" \;
    done
    # What CRIU asks the kernel about.
    for module in unix_diag inet_diag tcp_diag udp_diag netlink_diag af_packet_diag nfnetlink \
        nf_tables libcrc32c crc32c_generic veth tun; do
        find "$modules/kernel" -name "$module.ko" -exec cp {} "root/lib/modules/$release/" \;
    done
    for of in $i root; do
        cp "$modules"/modules.[bo]* "$of/lib/modules/$release/"
        depmod -b $of "$release"
    done
    cp "$here/criu-init" $i/init
    chmod +x $i/init
    (cd $i && find . | cpio -o -H newc 2> /dev/null | gzip -1) > root/boot/$2/initrd
    cp "$unpacked/boot/vmlinuz-$release" root/boot/$2/vmlinuz
}
releases=$(cd "$unpacked/boot" && ls | sed -n 's/^vmlinuz-//p')
kernel "$(echo "$releases" | grep -e '-cloud-amd64$')" cloud
kernel "$(echo "$releases" | grep -e '[0-9]-amd64$')" full
cp root/boot/cloud/vmlinuz kernel
cp root/boot/cloud/initrd initrd
etc=root/etc/systemd/system
# unit NAME COMMAND [LINE…]
unit() {
    name=$1
    { printf '[Service]\nExecStart=%s\n' "$2"; shift 2; printf '%s\n' "$@"; } > $etc/$name.service
    ln -s ../$name.service $etc/multi-user.target.wants/$name.service
}
# mark NAME COMMAND: as the operator does; the emulation is slow
mark() {
    mkdir $etc/$1.service.d
    {
        sed "s|/usr/bin/COMMAND|$2|" "$units/examples/tidings-criu.conf"
        echo TimeoutSec=900
    } > $etc/$1.service.d/tidings-criu.conf
}
mkdir -p $etc/multi-user.target.wants root/var/log/journal root/etc/tidings
printf 'CRIU_WAIT=300\nCRIU_AGE=1800\n' > root/etc/tidings/criu.conf
for name in serial-getty@ttyS0.service e2scrub_reap.service getty.target timers.target; do
    ln -sf /dev/null $etc/$name
done
user='/usr/bin/setpriv --reuid=nobody --regid=nogroup --clear-groups'
for name in marked plain; do
    unit $name "$user /usr/local/bin/counter /var/log/$name.count"
    : > root/var/log/$name.count
    chown nobody:nogroup root/var/log/$name.count
done
mark marked "$user /usr/local/bin/counter /var/log/marked.count"
unit talker '/usr/bin/sleep infinity'
mark talker '/usr/bin/sleep infinity'
opens='/bin/sh -c "exec sleep infinity 3< /var/opened"'
unit spoilt "$opens"
mark spoilt "$opens"
: > root/var/opened
sed -i 's/^StandardOutput=.*/StandardOutput=journal/' $etc/talker.service.d/tidings-criu.conf
unit spoil /usr/bin/true Type=oneshot RemainAfterExit=yes ExecStop=/usr/local/bin/spoil
# Stops after it.
sed -i '1i [Unit]\nBefore=spoilt.service' $etc/spoil.service
cat > root/usr/local/bin/spoil <<'Y'
#!/bin/sh
case $(cat /boots) in
1) truncate -s 4096 /var/lib/tidings-criu/spoilt.service/image/pages-1.img ;;
2) echo >> /var/opened ;;
esac
Y
chmod +x root/usr/local/bin/spoil
unit story /usr/local/bin/story Type=exec
after='marked.service plain.service talker.service spoilt.service'
sed -i "1i [Unit]\nAfter=$after" $etc/story.service
: > root/etc/fstab
tr -d - < /proc/sys/kernel/random/uuid > root/etc/machine-id
/sbin/mke2fs -q -t ext4 -d root disk.img 1200M
rm -rf root initrd-*
