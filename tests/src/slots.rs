//! What the tests of slots share.

/// Groups of slots, and where they are served.
pub const GROUPS: &str = "[[peer]]\nname = \"ops\"\nnetworks = [\"127.0.0.0/8\"]\n\
    [[slot]]\ngroup = \"web\"\nmax = 2\nlease_seconds = 600\noperators = [\"ops\"]\n\
    [[slot]]\ngroup = \"short\"\nmax = 2\nlease_seconds = 2\nfailures = 2\noperators = [\"ops\"]\n\
    [[slot]]\ngroup = \"single\"\nlease_seconds = 600\n\
    [fleetlock]\nlisten = [\"FREE-ADDRESS\"]\n";
