#!/bin/sh
# livepatch.sh UNPACKED LIB: in the current directory, `kernel` and `initrd` of the VM, and the
# module, built with the headers of that kernel, which are seen at their place in this mount
# namespace alone.
set -eu
unpacked=$1 lib=$2 here=$(cd "$(dirname "$0")" && pwd) place=$PWD
release=$(cd "$unpacked/boot" && ls | sed -n 's/^vmlinuz-\(.*-cloud-amd64\)$/\1/p' | head -n 1)
cp "$unpacked/boot/vmlinuz-$release" kernel
# The build-id as the file of the kernel has it, and not as the kernel says.
at=$(LC_ALL=C grep -abo -P '\x02\x21\x4c\x18' kernel | head -n 1 | cut -d: -f1)
tail -c "+$((at + 1))" kernel | lz4 -dc 2> /dev/null > vmlinux || :
readelf -n vmlinux 2> /dev/null | sed -n 's/.*Build ID: //p' | head -n 1 > build-id
[ -s build-id ] || { echo "the kernel has no build-id"; exit 1; }
mkdir module
cp "$here/livepatch.c" module/tidings_test.c
echo 'obj-m := tidings_test.o' > module/Makefile
mount -t overlay source -o lowerdir="$unpacked/usr/src:/usr/src" /usr/src
mount -t overlay library -o lowerdir="$unpacked/usr/lib:/usr/lib" /usr/lib
make -s -C "/usr/src/linux-headers-$release" M="$place/module" modules > make.log 2>&1 || {
    cat make.log
    exit 1
}
strip --strip-debug module/tidings_test.ko
mkdir -p root/bin root/proc root/sys root/dev root/etc/tidings root/lib/tidings \
    "root/lib/modules/$release"
cp /bin/busybox root/bin/
for name in $(busybox --list | grep -vx busybox); do ln -s busybox root/bin/$name; done
cp -rL "$lib/." root/lib/tidings/
cp module/tidings_test.ko root/module.ko
cp build-id root/
cp "$here/livepatch-init" root/init
chmod +x root/init
(cd root && find . | cpio -o -H newc 2> /dev/null | gzip -1) > initrd
