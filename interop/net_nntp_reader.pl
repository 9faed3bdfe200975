#!/usr/bin/perl
# A stock client, Perl's Net::NNTP, reads a broker over TCP and over TLS.
#
# usage: net_nntp_reader.pl NNTP_HOST:PORT NNTPS_HOST:PORT CA_FILE CHANNEL RELEASES
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use IO::Socket::SSL;
use Net::NNTP;

sub check {
    my ($what, $good) = @_;
    die "$what\n" unless $good;
}

# Under TLS Net::NNTP leaves the CR of line ends in what it returns.
sub text {
    my ($value) = @_;
    $value =~ s/\r$//;
    return $value;
}

sub read_all {
    my ($server, $channel, $releases) = @_;
    check("no greeting", $server);
    check("the channel is not listed", exists $server->list->{$channel});
    check("no description", text($server->newsgroups("*")->{$channel}) eq "Signed announcements of releases");
    my ($count, $first, $last, $name) = $server->group($channel);
    check("marks $count $first $last $name", $count == $releases && $first == 1 && $last == $releases && $name eq $channel);

    my $overview = $server->xover([$first, $last]);
    check("overview", keys %$overview == $releases && text($overview->{2}[0]) eq "$channel 1.2");
    my $subjects = $server->xhdr("Subject", [$first, $last]);
    check("xhdr", text($subjects->{1}) eq "$channel 1.1");

    my $previous = "-";
    for my $number ($first .. $last) {
        my $article = join "", @{ $server->article($number) };
        $article =~ s/\r\n/\n/g;
        my (undef, $body) = split /\n\n/, $article, 2;
        (my $signed = $body) =~ s/^Signature: .*\n//mg;
        my $digest = sha256_hex($signed);
        check("the id of $number", $article =~ /^Message-ID: <$number\.$digest\@\Q$channel\E>/m);
        check("the link of $number", $body =~ /^Previous: \Q$previous\E$/m);
        $previous = "sha256:$digest";
    }
    check("newnews", @{ $server->newnews(1767225600, $channel) } == $releases);
    check("newgroups", (grep { !/[.]beat$/ } keys %{ $server->newgroups(1767225600) }) == 2);
    check("date", $server->date > 1767225600);
    check("nntpstat", $server->nntpstat($first));
    check("next", $server->next);
    check("an article that is not there", !defined $server->article($last + 1) && $server->code == 423);
    check("an unsigned article was taken",
        !$server->post("From: me\@example.org\n", "Newsgroups: x\n", "Subject: hello\n", "\n", "hello\n") && $server->code == 441);
    $server->quit;
}

my ($nntp, $nntps, $ca, $channel, $releases) = @ARGV;
read_all(Net::NNTP->new(Host => $nntp, Timeout => 30), $channel, $releases);
read_all(Net::NNTP->new(Host => $nntps, SSL => 1, SSL_ca_file => $ca, Timeout => 30), $channel, $releases);
print "Net::NNTP: $releases announcements of $channel listed, overviewed and read over TCP and TLS\n";
