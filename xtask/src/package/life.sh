#!/bin/bash
# The life of the packages on a machine whose first process is systemd; `cargo xtask package --test`
# runs it there. /test has the packages of the version before, and of this one.
set -eEu -o pipefail
[ "$(cat /proc/1/comm)" = systemd ] && [ -e /test/life.sh ] || {
    echo "this changes the machine: it is for the test's own"
    exit 1
}

line=0
finish() {
    code=$?
    [ "$code" = 0 ] || echo "FAILED in line $line: $command"
    journalctl --no-pager -o short-monotonic > /test/journal 2>&1 || :
    exit "$code"
}
trap 'line=$LINENO command=$BASH_COMMAND' ERR
trap finish EXIT
cd /root
export HOME=/root DEBIAN_FRONTEND=noninteractive

ok() { echo "ok: $*"; }
# until_is WHAT COMMAND…: within a minute
until_is() {
    local what=$1 tries=0
    shift
    until "$@" > /dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || { echo "not within a minute: $what"; return 1; }
        sleep 0.2
    done
    ok "$what"
}
fails() { if "$@" > /dev/null 2>&1; then echo "it did not fail: $*"; return 1; fi; }
install_all() { dpkg -i "/test/$1"/*.deb > dpkg.log 2>&1 || { cat dpkg.log; return 1; }; }
active() { systemctl is-active --quiet "$1"; }
pid() { systemctl show -P MainPID "$1"; }
user() { stat -c %U "/proc/$(pid "$1")"; }
invocation() { systemctl show -P InvocationID demo; }
releases() { tidings log acme.os.stable --json | grep -c '"kind":"release"'; }
# went SERIAL: the applier's handler has put it in place, and the unit was restarted
went() {
    [ "$(cat /boot/demo)" = "payload $1" ] &&
        journalctl -u tidings-agent | grep "the machine goes.*serial=$1" > /dev/null
}
# applied SERIAL: it is kept
applied() { tidings-agent status --json | grep -q "\"applied\":$1[,}]" && went "$1"; }
# The agent gives a machine that goes a minute; when it is started, it looks at once.
kept() {
    until_is "release $1 is put in place" went "$1" && systemctl restart tidings-agent &&
        until_is "and kept" applied "$1"
}
release() {
    echo "payload $1" > "/srv/payloads/$1"
    tidings release acme.os.stable --version "$1.0" "${@:2}" --apply 'restart demo.service' \
        --payload "line /srv/payloads/$1 file:///srv/payloads/$1" --key acme/release.key \
        --publish > /dev/null
}
# complete SCRIPT FUNCTION WORD…: what bash would offer for the last word
complete_of() {
    bash -c '
        source "/usr/share/bash-completion/completions/$1"
        function=$2
        shift 2
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_TYPE=9
        COMP_POINT=${#COMP_LINE}
        "$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2> /dev/null
        printf "%s\n" "${COMPREPLY[@]}"' - "$@"
}

# --- the version before
install_all before
getent passwd tidings tidings-agent > /dev/null
until_is "the broker runs as soon as it is installed" active tidingsd
active tidings-apply.socket
fails active tidings-agent
fails active tidings-beat
modes=$(stat -c '%U:%G %a' /etc/tidings/{tidingsd.toml,conf.d,tidingsd.keys,agent.keys} | xargs)
[ "$modes" = "root:tidings 640 root:tidings 750 root:root 700 root:root 700" ]
ok "users are there, and what is secret is for them alone"

# --- a namespace
tidings init acme > /dev/null
install -m 0600 acme/beat.key /etc/tidings/tidingsd.keys/
cat > /etc/tidings/conf.d/acme.toml << EOF
name = "news.example.org"
anchors = ["$(cat acme/anchor)"]
[[beat]]
namespace = "acme"
key_file = "/run/credentials/tidingsd.service/keys_beat.key"
every_seconds = 2
life_seconds = 600
EOF
echo '# the operator was here' >> /etc/tidings/tidingsd.toml
systemctl restart tidingsd
[ "$(user tidingsd)" = tidings ]
ok "conf.d, and a key whose file is for root alone: a credential"
export TIDINGS_BROKERS=nntp://127.0.0.1:119 TIDINGS_ANCHOR
TIDINGS_ANCHOR=$(cat acme/anchor)
tidings publish acme/trust.1 > /dev/null
was=$(pid tidingsd)
echo 'nmae = "x"' > /etc/tidings/conf.d/zz.toml
fails systemctl reload tidingsd
journalctl -u tidingsd | grep 'conf.d/zz.toml: line 1: unknown key `nmae`' > /dev/null
rm /etc/tidings/conf.d/zz.toml
systemctl reload tidingsd
[ "$was" = "$(pid tidingsd)" ] && active tidingsd
ok "a reload with a wrong configuration fails, says where, and harms nothing"

# --- an agent with a handler of the machine's own; the release restarts a unit
printf '[Service]\nExecStart=/bin/sleep infinity\n' > /etc/systemd/system/demo.service
# A program of another user, whose file is replaced while it runs.
cp /bin/sleep /usr/local/bin/nap
printf '[Service]\nType=exec\nUser=nobody\nExecStart=/usr/local/bin/nap infinity\n' \
    > /etc/systemd/system/stale.service
systemctl daemon-reload
systemctl start demo stale
rm /usr/local/bin/nap
mkdir -p /etc/tidings/format.d /boot /srv/payloads
cat > /etc/tidings/format.d/line << 'EOF'
#!/bin/sh
set -eu
case $1 in
can) echo "$T_SIZE" ;;
state)
    if [ -e kept ]; then echo kept
    elif [ -e armed ]; then echo running
    elif [ -e staged ]; then echo staged
    else echo none; fi ;;
stage)
    # What the unit keeps from it.
    for place in /usr /etc /root /srv; do
        ! touch "$place/harm" 2> harm || { echo "it can write in $place"; exit 1; }
    done
    ! date --set=@0 > harm 2>&1 || { echo "it can set the clock"; exit 1; }
    # And what it must not keep.
    tidings-agent restarts > harm 2>&1 || :
    grep -q stale.service harm || { echo "it cannot tell who runs old code: $(cat harm)"; exit 1; }
    cat /dev/fd/3 > staged
    chown 1:1 staged ;;
arm) cp staged /boot/demo; touch armed ;;
keep) touch kept ;;
drop) rm -f staged armed kept ;;
esac
EOF
chmod 0755 /etc/tidings/format.d/line
cat > /etc/tidings/agent.toml << EOF
anchor = "$(cat acme/anchor)"
brokers = ["nntp://127.0.0.1:119"]
channels = ["acme.os.stable"]
[fetch]
schemes = ["file"]
EOF
release 1 --new-channel
began=$(invocation)
systemctl start tidings-agent
kept 1
[ "$began" != "$(invocation)" ] && active demo
[ "$(user tidings-agent)" = tidings-agent ]
release 2
kept 2
tidings fetch acme.os.stable --state device.state --all > /dev/null
tidings status --state device.state | grep CURRENT > /dev/null
ok "a device is CURRENT: beats are signed with the credential"

# --- tidings beat, apart from the broker
install -m 0600 acme/beat.key /etc/tidings/beat.key
sed 's|^TIDINGS_BROKERS=.*|TIDINGS_BROKERS=nntp://127.0.0.1:119|' acme/device.env \
    > /etc/tidings/beat.env
systemctl start tidings-beat
until_is "tidings-beat keeps its outbox" test -d /var/lib/private/tidings-beat/outbox
active tidings-beat
systemctl stop tidings-beat

# --- completions
complete_of tidings _clap_complete_tidings tidings log acme.o |
    grep '^acme.os.stable *$' > /dev/null
complete_of tidings _clap_complete_tidings tidings with | grep '^withdraw *$' > /dev/null
complete_of tidingsd _tidingsd tidingsd ini | grep init-cluster > /dev/null
complete_of tidings-agent _tidings__agent tidings-agent sta | grep status > /dev/null
ok "completions know commands, and the channels that were met here"

# --- the version of today
was=$(pid tidingsd) agent=$(pid tidings-agent) begun=$(invocation)
install_all now
fails grep 'Configuration file' dpkg.log
grep -q 'the operator was here' /etc/tidings/tidingsd.toml
until_is "the broker runs after the upgrade" active tidingsd
until_is "and the agent" active tidings-agent
[ "$was" != "$(pid tidingsd)" ] && [ "$agent" != "$(pid tidings-agent)" ]
[ "$(releases)" = 2 ]
until_is "the agent remembers what it has applied" applied 2
[ "$begun" = "$(invocation)" ]
release 3
kept 3

# --- removed, and there again
dpkg -r tidingsd tidings tidings-agent > dpkg.log 2>&1
fails active tidingsd
fails active tidings-agent
fails active tidings-apply.socket
[ -e /etc/tidings/tidingsd.toml ] && [ -d /var/lib/tidings ] && [ -d /var/lib/tidings-apply ]
install_all now
until_is "what was removed and comes back has its state" applied 3
[ "$(releases)" = 3 ]

# --- purged: data goes, keys stay
cp acme/root.key /var/lib/tidings/
dpkg -P tidingsd tidings tidings-agent > dpkg.log 2>&1
grep -q 'these private keys are kept' dpkg.log
grep -qx /etc/tidings/tidingsd.keys/beat.key dpkg.log
left=$(find /var/lib -path /var/lib/dpkg -prune -o -path '*/tidings*' -type f -print | xargs)
[ "$left" = /var/lib/tidings/root.key ] || { echo "left: $left"; false; }
[ -e /etc/tidings/tidingsd.keys/beat.key ] && [ -e /etc/tidings/beat.key ]
[ ! -e /etc/tidings/tidingsd.toml ] && [ -e /etc/tidings/conf.d/acme.toml ]
ok "a purge removes data and keeps keys, and says so"
echo "all good"
