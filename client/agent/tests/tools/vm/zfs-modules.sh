#!/bin/sh
# zfs-modules.sh UNPACKED: in the current directory, `RELEASE/*.ko`: OpenZFS as Debian packages it,
# built for Debian's kernel with that kernel's headers, which are seen at their place in this mount
# namespace alone.
set -eu
unpacked=$1 place=$PWD
release=$(cd "$unpacked/boot" && ls | sed -n 's/^vmlinuz-\(.*-cloud-amd64\)$/\1/p' | head -n 1)
[ ! -d "$release" ] || exit 0
rm -rf source new
cp -r "$unpacked"/usr/src/zfs-* source
mount -t overlay source -o lowerdir="$unpacked/usr/src:/usr/src" /usr/src
mount -t overlay library -o lowerdir="$unpacked/usr/lib:/usr/lib" /usr/lib
echo "builds zfs.ko for $release: some minutes"
{
    cd source
    ./configure --with-config=kernel --with-linux-obj="/usr/src/linux-headers-$release" \
        --with-linux="/usr/src/linux-headers-${release%-cloud-amd64}-common"
    make -j "$(nproc)"
} > log 2>&1 || {
    tail -n 30 "$place/log"
    exit 1
}
cd "$place"
mkdir new
find source/module -name '*.ko' -exec cp {} new/ \;
[ -e new/zfs.ko ] || { echo "no zfs.ko came out, see $place/log"; exit 1; }
strip --strip-debug new/*.ko
mv new "$release"
rm -rf source
