#!/bin/bash
# A private INN 2.7 news server from Debian's packages, unpacked but not installed. All on 127.0.0.1.
#
#   inn.sh fetch DEBDIR                  download and unpack inn2 (needs apt-get; root only if a library is missing)
#   inn.sh setup DIR DEBDIR NNTP_PORT FEED_TO_PORT FEED_TO_NAME [GROUP...]
#                                        FEED_TO_PORT 0: feed nobody; FEED_TO_NAME: the peer's name in Path
#                                        environment: PATHHOST (inn.example.org), FEED_PATTERN (demo.*)
#   inn.sh start DIR | stop DIR          stop may be repeated
#   inn.sh newgroup DIR NAME
#   inn.sh xmit DIR HOST PORT            offer everything in the spool, oldest first, by innxmit
#   inn.sh rnews DIR FILE [HOST PORT]    offer an rnews batch (or one article) by IHAVE to this server, or to HOST:PORT
#   inn.sh ctl DIR COMMAND...            ctlinnd, for example: ctl DIR mode
#   inn.sh flush DIR                     restart innfeed, which connects to its peer at once
#
# Run as root, all of INN runs as user news; run as anybody else, as that user. DIR and DEBDIR must be absolute, and
# that user must be able to reach them. There is no syslog: see DIR/log/news (one line for each article: + accepted,
# - refused, j filed in junk), DIR/log/errlog and DIR/log/innfeed.status.
set -eu
export LC_ALL=C

die() { echo "inn.sh: $*" >&2; exit 1; }

# Run one of INN's programs (or any other) as its user, with the little environment that it needs.
as_news() {
    local run=(env -i LC_ALL=C HOME="$DIR" PATH="$DEBDIR/usr/lib/news/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        INNCONF="$DIR/etc/inn.conf" LD_LIBRARY_PATH="$DEBDIR/usr/lib/news:$(echo "$DEBDIR"/usr/lib/*-linux-gnu)")
    [ "$(id -u)" -ne 0 ] || run=(setpriv --reuid=news --regid=news --clear-groups -- "${run[@]}")
    (cd / && exec "${run[@]}" "$@")
}

load() { # load DIR: what setup noted there
    DIR=$1
    [ -r "$DIR/inn.sh.conf" ] || die "$DIR has not been set up"
    . "$DIR/inn.sh.conf"
}

greeting() { # print the first line that 127.0.0.1:PORT says, or fail
    local line
    { exec 9<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
    IFS= read -r -t 10 line <&9 || line=
    printf 'QUIT\r\n' >&9 2>/dev/null || true
    exec 9>&-
    [ -n "$line" ] && printf '%s\n' "${line%$'\r'}"
}

running() { # is the innd alive whose number is in the pid file? An unclean end leaves the file behind.
    PID=$(cat "$DIR/run/innd.pid" 2>/dev/null) && [ -n "$PID" ] &&
        tr '\0' '\n' 2>/dev/null <"/proc/$PID/environ" | grep -qxF "INNCONF=$DIR/etc/inn.conf"
}

fetch() {
    DEBDIR=$1
    mkdir -p "$DEBDIR/debs"
    (cd "$DEBDIR/debs" && apt-get -qq download inn2 inn2-inews libcanlock3) || die "apt-get download failed (apt-get update?)"
    for deb in "$DEBDIR"/debs/*.deb; do dpkg -x "$deb" "$DEBDIR"; done
    # Set-user-id programs ignore LD_LIBRARY_PATH, and nobody needs them: all runs as the one user, on high ports.
    chmod 755 "$DEBDIR" "$DEBDIR"/usr/lib/news/bin/{rnews,innbind}
    missing() { LD_LIBRARY_PATH=$(echo "$DEBDIR"/usr/lib/news "$DEBDIR"/usr/lib/*-linux-gnu | tr ' ' :) \
        ldd "$DEBDIR"/usr/lib/news/bin/{innd,nnrpd,innfeed,innxmit,rnews} | grep 'not found'; }
    if missing >/dev/null; then
        apt-get -qq install -y --no-install-recommends libdb5.3 libperl5.36 libpython3.11 libsasl2-2 libsqlite3-0 >/dev/null
        ! missing || die "libraries are missing"
    fi
}

setup() {
    [ $# -ge 5 ] || die "usage: setup DIR DEBDIR NNTP_PORT FEED_TO_PORT FEED_TO_NAME [GROUP...]"
    DIR=$1 DEBDIR=$2; local port=$3 to_port=$4 to_name=$5 user group bin=$2/usr/lib/news/bin g; shift 5
    case $DIR$DEBDIR in /*[[:space:]]*) die "no blanks in paths, please" ;; esac
    [ "${DIR#/}" != "$DIR" ] && [ "${DEBDIR#/}" != "$DEBDIR" ] || die "DIR and DEBDIR must be absolute"
    [ ${#DIR} -le 80 ] || die "$DIR: too long for the sockets in it"
    [ -x "$bin/innd" ] || die "$DEBDIR: no innd there, run fetch first"
    [ ! -e "$DIR/inn.sh.conf" ] || die "$DIR is set up already"
    user=$(id -un) group=$(id -gn)
    if [ "$user" = root ]; then
        user=news group=news
        getent group news >/dev/null || groupadd -r news
        getent passwd news >/dev/null || useradd -r -g news -d /var/spool/news -s /usr/sbin/nologin news
    fi
    mkdir -p "$DIR"/{etc/filter,db,run,log/OLD,spool/{articles,overview,outgoing,innfeed,incoming/tmp,incoming/bad}}
    printf 'DEBDIR=%q\nPORT=%q\n' "$DEBDIR" "$port" >"$DIR/inn.sh.conf"

    # Mostly the settings whose defaults are for a big public site: limits, and minutes of waiting before retries.
    cat >"$DIR/etc/inn.conf" <<END
runasuser: $user
runasgroup: $group
domain: example.org
pathhost: ${PATHHOST:-inn.example.org}
mta: "/bin/true %s"
mailcmd: /bin/true
bindaddress: 127.0.0.1
port: $port
server: 127.0.0.1
hismethod: hisv6
ovmethod: tradindexed
enableoverview: true
artcutoff: 0
maxartsize: 1000000
remembertrash: false
docancels: none
noreader: false
maxconnections: 1000
nnrpdloadlimit: 0
initialtimeout: 180
chanretrytime: 2
pauseretrytime: 2
blockbackoff: 1
pathnews: $DEBDIR/usr/lib/news
pathbin: $bin
pathetc: $DIR/etc
pathfilter: $DIR/etc/filter
pathdb: $DIR/db
pathrun: $DIR/run
pathlog: $DIR/log
pathhttp: $DIR/log
pathspool: $DIR/spool
pathtmp: $DIR/spool/incoming/tmp
END
    echo 'method tradspool { newsgroups: * class: 0 }' >"$DIR/etc/storage.conf"
    printf '/remember/:11\n*:A:never:never:never\n' >"$DIR/etc/expire.ctl" # and nothing here runs expire
    printf 'streaming: true\nmax-connections: 0\npeer local { hostname: "127.0.0.1" }\n' >"$DIR/etc/incoming.conf"
    cat >"$DIR/etc/readers.conf" <<'END'
auth all { hosts: "*" default: "<reader>" }
access all { users: "<reader>" newsgroups: "*" access: RPN }
END
    echo 'ME:!*::' >"$DIR/etc/newsfeeds"
    if [ "$to_port" != 0 ]; then
        printf '%s\n' "innfeed!:!*:Tc,Wnm*:$bin/innfeed" "$to_name:${FEED_PATTERN:-demo.*}:Tm:innfeed!" >>"$DIR/etc/newsfeeds"
        # innfeed looks into its backlog file only as it connects and after an article, never when idle, so what a burst
        # puts there (more than 30 articles by default) would stay there. Hence the large queue and the 0.
        cat >"$DIR/etc/innfeed.conf" <<END
host-queue-highwater: 1000000
backlog-rotate-period: 0
backlog-newfile-period: 5
initial-sleep: 1
initial-reconnect-time: 1
max-reconnect-time: 4
initial-connections: 1
max-connections: 1
peer $to_name { ip-name: 127.0.0.1 port-number: $to_port streaming: true }
END
    fi
    : >"$DIR/etc/passwd.nntp"
    : >"$DIR/db/active.times"
    : >"$DIR/db/newsgroups"
    printf '%s 0000000000 0000000001 n\n' control control.cancel junk >"$DIR/db/active"
    for g; do
        valid_group "$g"
        echo "$g 0000000000 0000000001 y" >>"$DIR/db/active"
        echo "$g $(date +%s) inn.sh" >>"$DIR/db/active.times"
    done
    : >"$DIR/db/history"
    [ "$(id -u)" -ne 0 ] || chown -R news:news "$DIR"
    as_news test -w "$DIR/db" -a -x "$bin/innd" || die "user $user cannot reach $DIR or $DEBDIR (a parent of mode 700?)"
    as_news makedbz -i -o -s 500000 -f "$DIR/db/history" || die "makedbz failed"
}

valid_group() { # tradspool keeps an article as DIR/spool/articles/demo/os/stable/17, so no part may be a number
    [[ $1 =~ ^[A-Za-z0-9+_-]+(\.[A-Za-z0-9+_-]+)*$ && ! .$1. =~ \.[0-9]+\. ]] || die "$1: not a usable group name"
}

start() {
    load "$1"
    ! running || return 0
    ! greeting "$PORT" >/dev/null || die "port $PORT is taken"
    local flags=() i
    if [ -e "$DIR/run/innd.pid" ]; then flags=(-r); rm -f "$DIR"/run/*; fi # an unclean end: renumber
    as_news innd ${flags[@]+"${flags[@]}"} </dev/null >>"$DIR/start.log" 2>&1 || die "innd failed, see $DIR/start.log"
    for i in {1..150}; do # 30 s
        if greeting "$PORT" | grep -q '^20[01] ' && ctl mode >/dev/null 2>&1; then return 0; fi
        sleep 0.2
    done
    die "innd does not answer on port $PORT, see $DIR/log"
}

stop() {
    load "$1"
    running || return 0
    local i
    ctl shutdown 'inn.sh stop' >/dev/null || kill "$PID"
    # innfeed and each reader's nnrpd are in innd's process group and may outlive it.
    for i in {1..50}; do kill -0 -- "-$PID" 2>/dev/null || return 0; sleep 0.1; done
    kill -- "-$PID" 2>/dev/null || return 0
    for i in {1..20}; do kill -0 -- "-$PID" 2>/dev/null || return 0; sleep 0.1; done
    kill -9 -- "-$PID" 2>/dev/null || true
}

ctl() { as_news ctlinnd -t 20 "$@"; }

xmit() {
    load "$1"
    local list; list=$DIR/spool/outgoing/xmit.$$
    as_news awk -F '\t' -v list="$list" '$3 ~ /^@/ { print $3 >list }' "$DIR/db/history"
    [ -s "$list" ] || return 0
    as_news innxmit -v -P "$3" "$2" "$list" && [ ! -s "$list" ] || die "not everything was sent, what is left is in $list"
}

rnews() { # -N: fail rather than keep the batch for later. An article that is refused is only told on stderr.
    load "$1"
    local said
    said=$(as_news rnews -N -v ${3:+-r "$3" -P "$4"} 2>&1 <"$2") || die "rnews failed: $said"
    [ -z "$said" ] || die "$said"
}

[ $# -ge 2 ] || die "usage: $(sed -n 's/^#   inn.sh/\n  &/p' "$0" | tr -d '#')"
case $1 in
fetch | setup | start | stop | xmit | rnews) "$@" ;;
newgroup) load "$2"; valid_group "$3"; ctl newgroup "$3" y inn.sh ;;
ctl) load "$2"; shift 2; ctl "$@" ;;
flush) load "$2"; ctl flush 'innfeed!' ;;
*) die "unknown command $1" ;;
esac
