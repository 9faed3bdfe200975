#!/bin/bash
# Stock netnews programs read a group of releases from a broker. Each has to get every article once, and every body has
# to be, but for the line ends, octet for octet what the broker answers to BODY.
#
#     UNPACKED=DIR readers.sh HOST PORT GROUP COUNT [PROGRAM…]
#
# Of Debian 12 it needs slrn slrnpull suck tin iproute2 perl python3 socat, installed; and inn2 inn2-inews leafnode,
# which are not for installing side by side: `apt-get download` and, for each, `dpkg -x FILE DIR`. It runs as root:
# fetchnews gets its folders in a mount namespace, nntpget its port, 119, in a network namespace.
set -u
host=$1 port=$2 group=$3 count=$4 inn=${UNPACKED:=/opt/unpacked}/usr/lib/news here=$(dirname "$(realpath "$0")")
shift 4
[ $# -gt 0 ] || set -- slrn slrnpull suck tin fetchnews pullnews nntpget actsync
export LC_ALL=C TERM=vt100 NNTPSERVER=$host LD_LIBRARY_PATH=$inn

fail() { echo "readers.sh: $program: $* (see $work)" >&2; exit 1; }
run() { timeout 60 "$@" >>log 2>&1 </dev/null || fail "exit code $?: $(tail -n 2 log)"; }
await() { run sh -c "until $1; do sleep 0.1; done"; }

check() { # ARTICLE…: these are files that the program wrote
    mkdir got
    for article; do sed '1,/^$/d' "$article" >"got/$(sed -n 's/^Serial: //p' "$article")"; done
    diff -r ../expected got >difference || fail "the bodies differ: $(tail -n 2 difference)"
    [ $# -eq "$count" ] || fail "$# articles instead of $count"
    echo "$program: $# articles read, $(cat got/* | wc -c) octets of statements unchanged"
}

slrn() { # a macro in place of keys; `script` in place of a terminal
    mkdir articles
    echo "$group:" >newsrc
    printf '%s\n' 'set hostname "reader.home.arpa"' 'interpret "read.sl"' >slrnrc
    cat >read.sl <<'SLANG'
define group_mode_startup_hook ()
{
   if (select_group ()) quit (1);
   call ("header_bob");
   do () = save_current_article ("articles/" + string (get_header_number ()));
   while (header_down (1));
   quit (0);
}
SLANG
    run script -qec "slrn --nntp -h $host -p $port -i slrnrc -f newsrc" /dev/null
    ! grep -q 'XOVER support disabled' log || fail 'it does without XOVER: LIST OVERVIEW.FMT is not what it knows'
    check articles/*
}

slrnpull() {
    mkdir -p news out.going
    echo "$group" >slrnpull.conf
    run slrnpull -d "$PWD" -h "$host:$port"
    check "news/${group//.//}"/[0-9]*
}

suck() { # into a file each (-m), past history and killfile (-H -K)
    mkdir data temporary articles
    echo "$group 0" >data/sucknewsrc
    run suck "$host:$port" -m -H -K -dd data -dt temporary -dm articles
    check articles/*
}

tin() { # save what is unread (-S), knowing the groups of newsrc only (-n)
    echo "$group:" >newsrc
    run tin -r -p "$port" -S -n -f newsrc -s "$PWD/articles"
    check "articles/${group//.//}"/*
}

fetchnews() { # its folders are fixed, and what it takes for a host's name is choosy
    mkdir -p etc/news/leafnode spool/news/{failed.postings,interesting.groups,leaf.node,message.id,out.going,temp.files}
    printf '%s\n' 'hostname = reader.home.arpa' 'expire = 20000' "server = $host" "port = $port" \
        >etc/news/leafnode/config
    touch "spool/news/interesting.groups/$group"
    chown -R news:news spool
    run unshare --mount sh -c "mount -t overlay -o lowerdir=etc:/etc overlay /etc && mount --bind spool /var/spool &&
        exec '$UNPACKED/usr/sbin/fetchnews' -vvv -n -w"
    check "spool/news/${group//.//}"/[0-9]*
}

pullnews() { # to a server of our own; without INN's configuration
    mkdir INN articles
    echo 1 >INN/Config.pm
    printf '%s:%s\n    %s 0 0\n' "$host" "$port" "$group" >marks
    python3 "$here/sink.py" articles >sink 2>>log &
    await '[ -s sink ]'
    run env PERL5LIB=. perl "$inn/bin/pullnews" -c "$PWD/marks" -s "127.0.0.1:$(cat sink)"
    check articles/*
}

inn_conf() { # what INN's programs cannot do without
    printf '%s\n' "pathnews: $inn" "pathtmp: $PWD" 'domain: home.arpa' 'mta: none' 'hismethod: hisv6' \
        'enableoverview: false' >inn.conf
    export INNCONF=$PWD/inn.conf
}

nntpget() { # NEWNEWS, then ARTICLE by message-id
    inn_conf
    mkdir articles
    socat UNIX-LISTEN:broker,fork "TCP:$host:$port" 2>>log &
    await '[ -S broker ]'
    run unshare --net --pid --fork --kill-child sh -c "ip link set lo up
        socat TCP-LISTEN:119,bind=127.0.0.1,fork UNIX:broker &
        until grep -q ':0077 ' /proc/net/tcp; do sleep 0.1; done
        '$inn/bin/nntpget' -t '20200101 000000 GMT' -n '$group' 127.0.0.1 >stream"
    awk '$0 == "." { n++; next } { print >("articles/" n + 1) }' stream
    check articles/*
}

actsync() { # reads no articles: it compares lists of groups, here ours with an empty one
    inn_conf
    touch active
    run "$inn/bin/actsync" -p 0 -o ak ./active "$host:$port"
    grep -qx "$group $count 1 y" log || fail "the group is not listed as it should: $(grep "^$group " log)"
    echo "actsync: $group listed, articles 1 to $count"
}

program=broker
work=$(mktemp -d) && mkdir "$work/expected" && exec 3<>"/dev/tcp/$host/$port" || exit 1
{ echo "GROUP $group"; seq -f 'BODY %.0f' "$count"; echo QUIT; } | sed 's/$/\r/' >&3
timeout 60 sed 's/\r$//' <&3 | awk -v to="$work/expected/" '
    !file && /^222 / { file = to $2; next }
    $0 == "." { file = "" }
    file { sub(/^[.]/, ""); print >file }'
for n in $(seq "$count"); do
    for line in 'Tidings: 1 release' "Channel: $group" "Serial: $n" 'Signature: ed25519:[^ ]* [^ ]*'; do
        grep -sqx "$line" "$work/expected/$n" || fail "BODY $n has no line '$line'"
    done
done

status=0
for program; do
    mkdir "$work/$program"
    (cd "$work/$program" && export HOME=$PWD && trap 'kill $(jobs -p) 2>/dev/null' EXIT && "$program") || status=1
done
[ "$status" -ne 0 ] || rm -r "$work"
exit "$status"
