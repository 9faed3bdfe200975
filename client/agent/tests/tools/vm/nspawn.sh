#!/bin/sh
# nspawn.sh TREE LIB: in a mount namespace, systemd as the first process of a container on top of
# TREE, which goes by the way soft-reboot into another root. What it does is in `state/said`, each
# line with the seconds since the kernel began.
set -eu
tree=$1 lib=$2 place=$PWD
mkdir -p state layers root-1 root-2
mount -t tmpfs layers layers
for n in 1 2; do
    mkdir layers/upper-$n layers/work-$n
    mount -t overlay root-$n \
        -o lowerdir="$tree",upperdir=layers/upper-$n,workdir=layers/work-$n root-$n
    units=root-$n/etc/systemd/system
    mkdir -p root-$n/state root-$n/usr/lib/tidings root-$n/roots/next $units/multi-user.target.wants
    cp -rL "$lib/." root-$n/usr/lib/tidings/
    echo root-$n > root-$n/etc/which
    cat > root-$n/usr/local/bin/ticks <<'X'
#!/bin/sh
while :; do read -r now _ < /proc/uptime; echo "$now" >> "/state/$1"; sleep 0.1; done
X
    cat > root-$n/usr/local/bin/story <<'X'
#!/bin/sh
say() { read -r now _ < /proc/uptime; echo "$now $*" >> /state/said; }
survivor() {
    echo "survivor=$(systemctl is-active survivor.service)" \
        "$(systemctl show -P MainPID survivor.service)"
}
say "$(cat /etc/which) soft-reboots=$(systemctl show -P SoftRebootsCount) $(survivor)"
case $(cat /etc/which) in
root-1)
    systemd-run -q --unit=survivor -p SurviveFinalKillSignal=yes -p IgnoreOnIsolate=yes \
        -p DefaultDependencies=no /usr/local/bin/ticks survivor
    sleep 1
    say "$(survivor)"
    mkdir -p /run/nextroot
    mount --rbind /roots/next /run/nextroot
    mount --make-private /run/nextroot
    /usr/lib/tidings/apply.d/soft-reboot can || say "it cannot be gone"
    say go
    /usr/lib/tidings/apply.d/soft-reboot go ;;
*)
    sleep 1
    say end
    systemctl poweroff -ff ;;
esac
X
    chmod +x root-$n/usr/local/bin/ticks root-$n/usr/local/bin/story
    printf '[Service]\nExecStart=/usr/local/bin/ticks service\n' > $units/service.service
    printf '[Unit]\nAfter=multi-user.target\n[Service]\nExecStart=/usr/local/bin/story\n' \
        > $units/story.service
    for unit in service story; do
        ln -sf ../$unit.service $units/multi-user.target.wants/$unit.service
    done
done
# systemd in the container wants the unified hierarchy.
umount -R /sys/fs/cgroup 2> /dev/null || :
mount -t cgroup2 cgroup2 /sys/fs/cgroup
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout 240 systemd-nspawn -q --register=no --keep-unit --boot \
    --private-network -D root-1 -M "tidings-$$" --bind="$place/state:/state" \
    --bind="$place/root-2:/roots/next" --bind="$place/state:/roots/next/state" \
    --console=pipe < /dev/null
