#!/bin/sh
# zfs.sh UNPACKED MODULES LIB TEST: in the current directory, `kernel`, `initrd` and `disk.img` of a
# VM with OpenZFS: the handlers lie there at LIB, and TEST is the program with the tests.
set -eu
unpacked=$1 modules=$2 lib=$3 test=$4 here=$(dirname "$0")
release=$(cd "$unpacked/boot" && ls | sed -n 's/^vmlinuz-\(.*-cloud-amd64\)$/\1/p' | head -n 1)
cp "$unpacked/boot/vmlinuz-$release" kernel
libraries=$unpacked/lib/x86_64-linux-gnu:$unpacked/usr/lib/x86_64-linux-gnu
# What comes first in PATH, and what it is linked with.
program() {
    cp "$1" "root/sbin/${1##*/}"
    for library in $(LD_LIBRARY_PATH=$libraries ldd "$1" | grep -oE '/[^ ]+'); do
        at=root/lib/${library##*/}
        case $library in /lib64/*) at=root$library ;; esac
        cp -L "$library" "$at"
    done
}
mkdir -p root/bin root/sbin root/lib root/lib64 root/proc root/sys root/dev root/tmp root/tree \
    root/boot root/etc "root$lib" "root/lib/modules/$release"
cp /bin/busybox root/bin/
for name in $(busybox --list | grep -vx busybox); do ln -s busybox "root/bin/$name"; done
for name in dash find sha256sum sort cut head sed mount umount unshare stat mktemp; do
    program "$(command -v $name)"
done
ln -sf ../sbin/dash root/bin/sh
for name in zfs zpool mount.zfs; do program "$unpacked/sbin/$name"; done
program "$test"
mv "root/sbin/${test##*/}" root/tests
strip root/tests
cp -r "$lib/." "root$lib/"
cp "$modules/$release"/*.ko "root/lib/modules/$release/"
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci \
    virtio_blk crc16 mbcache jbd2 ext4 crc32c_generic libcrc32c; do
    find "$unpacked/lib/modules/$release/kernel" -name "$module.ko" \
        -exec cp {} "root/lib/modules/$release/" \;
done
cp "$unpacked/lib/modules/$release"/modules.[bo]* "root/lib/modules/$release/"
depmod -b root "$release"
sed "s|^LIB=.*|LIB=$lib|" "$here/zfs-init" > root/init
chmod +x root/init
(cd root && find . | cpio -o -H newc 2> /dev/null | gzip -1) > initrd
mkdir boot
truncate -s 322M disk.img
printf 'label: dos\nstart=2048,size=64M,type=83\nsize=256M,type=bf\n' | /sbin/sfdisk -q disk.img
/sbin/mke2fs -q -t ext4 -d boot -E offset=1048576 disk.img 64M
