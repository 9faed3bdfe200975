#!/bin/bash
# A private INN 2.7 news server from Debian's packages, unpacked but not installed. All of it is on 127.0.0.1.
#
#   inn.sh fetch DEBDIR                  download and unpack INN (apt-get; root only if a library is missing)
#   inn.sh setup DIR DEBDIR NNTP_PORT FEED_TO_PORT FEED_TO_NAME [GROUP...]
#                                        FEED_TO_NAME is the peer's name in Path; FEED_TO_PORT 0: feed nobody.
#                                        Environment: PATHHOST (inn.example.org), FEED_GROUPS (demo.*)
#   inn.sh start DIR                     returns when the server answers; does nothing if it runs
#   inn.sh stop DIR                      ends the server, its innfeed and its readers
#   inn.sh newgroup DIR NAME             (restarts innfeed too, which takes a second)
#   inn.sh flush DIR                     restart innfeed: it connects and sends its backlog at once
#   inn.sh xmit DIR HOST PORT            offer all articles in the spool, oldest first, by innxmit
#   inn.sh rnews DIR FILE [HOST PORT]    offer an rnews batch, or one article, to this server or to HOST:PORT by IHAVE
#   inn.sh run DIR PROGRAM [ARG...]      any of INN's programs, for example: run DIR ctlinnd mode
#
# DIR and DEBDIR are absolute. innd insists on being user and group news (it reads `runasuser` too late), so for root
# INN runs as news, who must be able to reach both, and anybody else is shown to it as news in a user namespace.
# INN tells its own errors to syslog only. Of use: DIR/log/news (a line for each article: + accepted, - refused and why,
# j in junk), DIR/log/innfeed.status, and what is in DIR/spool/innfeed (backlog).
set -eu
export LC_ALL=C

die() { echo "inn.sh: $*" >&2; exit 1; }

library_path() { echo "$DEBDIR"/usr/lib/news "$DEBDIR"/usr/lib/*-linux-gnu | tr ' ' :; }

as_news() { # PROGRAM [ARG...]: run it as INN's user, with the little environment that it needs
    local command=(env -i LC_ALL=C HOME="$DIR" PATH="$DEBDIR/usr/lib/news/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        INNCONF="$DIR/etc/inn.conf" LD_LIBRARY_PATH="$(library_path)" "$@")
    case $(id -un) in
    news) ;;
    root) command=(setpriv --reuid=news --regid=news --clear-groups -- "${command[@]}") ;;
    *) command=(unshare --user --map-user="$(id -u news)" --map-group="$(id -g news)" -- "${command[@]}") ;;
    esac
    (cd / && exec "${command[@]}")
}

ctl() { as_news ctlinnd -t 20 "$@"; }

load() { # DIR: what setup noted there
    DIR=$1
    [ -r "$DIR/inn.sh.conf" ] || die "$DIR has not been set up"
    . "$DIR/inn.sh.conf"
}

greeting() { # print the first line that our port says within 5 s; fail if nobody listens there
    local line=
    { exec 9<>"/dev/tcp/127.0.0.1/$PORT"; } 2>/dev/null || return 1
    IFS= read -r -t 5 line <&9 || true
    exec 9>&-
    printf '%s\n' "$line"
}

running() { [ -e "$DIR/run/innd.pid" ] && ctl mode >/dev/null 2>&1; }
answers() { running && greeting | grep -q '^20[01] '; }
# innfeed and the readers' nnrpd are in innd's process group; zombies do not count.
gone() { ! pgrep -g "$1" -r D,R,S,T >/dev/null; }

within() { # SECONDS COMMAND...: wait until it succeeds
    local end=$((SECONDS + $1))
    shift
    until "$@"; do [ $SECONDS -lt $end ] && sleep 0.1 || return 1; done
}

valid_group() { # article 17 is DIR/spool/articles/demo/os/stable/17, so no part of a name may be a number
    [[ $1 =~ ^[A-Za-z0-9+_-]+(\.[A-Za-z0-9+_-]+)*$ && ! .$1. =~ \.[0-9]+\. ]] || die "$1: not a usable group name"
}

fetch() {
    DEBDIR=$1
    mkdir -p "$DEBDIR/debs"
    (cd "$DEBDIR/debs" && apt-get -qq -o APT::Sandbox::User=root download inn2 inn2-inews libcanlock3) ||
        die "apt-get download failed (apt-get update first?)"
    for deb in "$DEBDIR"/debs/*.deb; do dpkg -x "$deb" "$DEBDIR"; done
    # Set-user-id programs would ignore LD_LIBRARY_PATH; with one user and high ports nothing needs to be one.
    chmod 755 "$DEBDIR" "$DEBDIR"/usr/lib/news/bin/{rnews,innbind}
    lacking() { LD_LIBRARY_PATH=$(library_path) ldd "$DEBDIR"/usr/lib/news/bin/{innd,nnrpd,innfeed} | grep 'not found'; }
    if lacking >/dev/null; then
        apt-get -qq install -y --no-install-recommends libdb5.3 libperl5.36 libpython3.11 libsasl2-2 libsqlite3-0 \
            >/dev/null
        ! lacking || die "libraries are missing"
    fi
}

setup() {
    [ $# -ge 5 ] || die "usage: setup DIR DEBDIR NNTP_PORT FEED_TO_PORT FEED_TO_NAME [GROUP...]"
    DIR=$1 DEBDIR=$2
    local port=$3 to_port=$4 to_name=$5 bin=$2/usr/lib/news/bin name
    shift 5
    [[ $DIR =~ ^/[^[:space:]]+$ && $DEBDIR =~ ^/[^[:space:]]+$ ]] || die "DIR and DEBDIR must be absolute, without blanks"
    [ ${#DIR} -le 80 ] || die "$DIR is too long for the names of sockets in it"
    [ -x "$bin/innd" ] || die "no innd in $DEBDIR, run fetch first"
    [ ! -e "$DIR/inn.sh.conf" ] || die "$DIR has been set up already"
    getent passwd news >/dev/null ||
        useradd --system --user-group --home-dir /var/spool/news --shell /usr/sbin/nologin news
    mkdir -p "$DIR"/{etc,db,run,log/OLD,spool/{articles,overview,outgoing,innfeed,incoming/tmp,incoming/bad}}

    # Articles of any age; no limits that a busy test could meet; seconds where the defaults are minutes; the paths.
    printf '%s: %s\n' >"$DIR/etc/inn.conf" \
        domain example.org pathhost "${PATHHOST:-inn.example.org}" mta '"/bin/true %s"' \
        bindaddress 127.0.0.1 port "$port" server 127.0.0.1 hismethod hisv6 ovmethod tradindexed \
        artcutoff 0 maxartsize 1000000 docancels none remembertrash false \
        maxconnections 1000 nnrpdloadlimit 0 initialtimeout 180 \
        chanretrytime 2 pauseretrytime 2 blockbackoff 1 \
        pathnews "$DEBDIR/usr/lib/news" pathetc "$DIR/etc" pathdb "$DIR/db" pathrun "$DIR/run" pathlog "$DIR/log" \
        pathspool "$DIR/spool" pathtmp "$DIR/spool/incoming/tmp"
    echo 'method tradspool { newsgroups: * class: 0 }' >"$DIR/etc/storage.conf"
    printf '/remember/:11\n*:A:never:never:never\n' >"$DIR/etc/expire.ctl" # besides, nothing runs expire
    printf 'streaming: true\nmax-connections: 0\npeer local { hostname: "127.0.0.1" }\n' >"$DIR/etc/incoming.conf"
    printf '%s\n' 'auth all { hosts: "*" default: "<reader>" }' \
        'access all { users: "<reader>" newsgroups: "*" access: RPN }' >"$DIR/etc/readers.conf" # read, post, NEWNEWS
    echo 'ME:!*::' >"$DIR/etc/newsfeeds" # no controlchan: control messages are filed, nothing acts on them
    if [ "$to_port" != 0 ]; then
        printf '%s\n' >>"$DIR/etc/newsfeeds" \
            "innfeed!:!*:Tc,Wnm*:$bin/innfeed" "$to_name:${FEED_GROUPS:-demo.*}:Tm:innfeed!"
        # innfeed reads its backlog file only as it connects and after an article, never while idle. What a burst puts
        # there (all beyond 30 articles by default) would wait for the next article: hence the large queue and the 0.
        printf '%s\n' >"$DIR/etc/innfeed.conf" \
            'host-queue-highwater: 1000000' 'backlog-rotate-period: 0' 'initial-sleep: 1' \
            'initial-reconnect-time: 1' 'max-reconnect-time: 4' 'initial-connections: 1' 'max-connections: 1' \
            "peer $to_name { ip-name: 127.0.0.1 port-number: $to_port streaming: true }"
    fi
    touch "$DIR"/etc/passwd.nntp "$DIR"/db/{active.times,newsgroups,history}
    printf '%s 0000000000 0000000001 n\n' control control.cancel junk >"$DIR/db/active"
    for name; do
        valid_group "$name"
        echo "$name 0000000000 0000000001 y" >>"$DIR/db/active"
        echo "$name $(date +%s) inn.sh" >>"$DIR/db/active.times"
    done
    [ "$(id -u)" -ne 0 ] || chown -R news:news "$DIR"
    as_news test -w "$DIR/db" -a -x "$bin/innd" || die "news cannot reach $DIR or $DEBDIR (a folder of mode 700 above?)"
    as_news makedbz -i -o -s 500000 -f "$DIR/db/history" || die "makedbz failed"
    printf 'DEBDIR=%q\nPORT=%q\n' "$DEBDIR" "$port" >"$DIR/inn.sh.conf"
}

start() {
    load "$1"
    ! running || return 0
    ! greeting >/dev/null || die "port $PORT is taken"
    local flags=(-u) # log/news unbuffered
    if [ -e "$DIR/run/innd.pid" ]; then # it did not end well
        within 5 gone "$(cat "$DIR/run/innd.pid")" || true # its innfeed would keep a new one from taking the peer
        flags+=(-r) # renumber
        rm -f "$DIR"/run/*
    fi
    as_news innd "${flags[@]}" </dev/null >>"$DIR/start.log" 2>&1 || die "innd failed, see $DIR/start.log"
    within 20 answers || die "innd does not answer on port $PORT"
}

stop() {
    load "$1"
    running || return 0
    local pid; pid=$(cat "$DIR/run/innd.pid")
    ctl shutdown 'inn.sh stop' >/dev/null || true
    within 5 gone "$pid" || kill -- "-$pid" 2>/dev/null || true
    within 3 gone "$pid" || kill -9 -- "-$pid" 2>/dev/null || true
}

xmit() {
    load "$1"
    local list=$DIR/spool/outgoing/xmit.$$ # innxmit removes it, or leaves there what it has not sent
    as_news awk -F '\t' -v list="$list" '$3 ~ /^@/ { print $3 >list }' "$DIR/db/history"
    [ -s "$list" ] || return 0
    as_news innxmit -v -l -P "$3" "$2" "$list" && [ ! -e "$list" ] || die "not everything was sent, the rest is in $list"
}

rnews() { # -N: fail rather than keep the batch for later. That an article is refused is only told on stderr, with -v.
    load "$1"
    local said
    said=$(as_news rnews -N -v ${3:+-r "$3" -P "$4"} 2>&1 <"$2") && [ -z "$said" ] || die "rnews failed: $said"
}

[ $# -ge 2 ] || die "usage:$(printf '\n'; sed -n 's/^#\(   inn.sh\)/\1/p' "$0")"
case $1 in
fetch | setup | start | stop | xmit | rnews) "$@" ;;
newgroup) load "$2"; valid_group "$3"; ctl newgroup "$3" y inn.sh ;;
flush) load "$2"; ctl flush 'innfeed!' ;;
run) load "$2"; shift 2; as_news "$@" ;;
*) die "unknown command $1" ;;
esac
