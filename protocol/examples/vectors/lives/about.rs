//! Which requirements each life is about.

/// The names of the lives, and what they are about.
#[rustfmt::skip]
const ABOUT: &[(&str, &str)] = &[
    ("anchor-later", "1-16 1-31"), ("anchor-unsigned", "1-16"), ("rotation", "1-17 1-19"),
    ("retired-keys", "1-15 1-24"), ("below-a-checkpoint", "1-25 2-6"), ("below-a-release", "2-6"),
    ("vouching", "2-6"), ("vouching-not-upwards", "2-6"), ("vouching-of-many", "2-6"), ("links", "2-5 2-7"),
    ("worthless-signature", "1-15"), ("sixteen-signatures", "1-15"), ("precedence", "1-14"), ("beat-roles", "1-14 2-10"),
    ("closed", "1-18 1-22"), ("settled-beat", "2-8 2-9"), ("settled-beat-restart", "2-8 2-14"), ("settled-beat-of-a-role", "2-8"),
    ("checkpoints-elsewhere", "1-21 2-10"),
    ("replay", "2-12"), ("hole", "2-13"), ("hole-accepted", "2-13"), ("begun-above", "2-13"),
    ("fork", "2-15 2-16"), ("fork-without-beats", "2-16"), ("fork-of-a-retired-key", "2-16"), ("fork-lost", "2-14"), ("fork-won", "2-16"),
    ("branch-replaced", "2-14 2-32"), ("other-branch", "2-15"), ("other-branch-at-the-head", "2-15"), ("other-branch-shorter", "2-15"),
    ("other-branch-without-a-live-beat", "2-15"), ("other-branch-under-older-trust", "2-15 2-20"), ("lost-race", "2-15"), ("run-ahead", "2-15"), ("branch-from-below", "2-15 2-20"),
    ("far-above-the-log", "2-15"), ("far-above-the-links", "2-15"), ("checkpoint-below-the-links", "2-20"), ("links-read-later", "2-15"),
    ("checkpoint-below", "2-14"), ("checkpoint-on-the-chain", "2-14"), ("checkpoint-above", "2-14"), ("checkpoint-between", "2-14"),
    ("restart-waits", "2-14"), ("restart-named", "2-14 2-32"), ("thief-above-the-checkpoint", "2-14"),
    ("thief-above-the-same-checkpoint", "2-14"), ("thief-in-an-empty-log", "2-14"), ("retired-head-that-goes-on", "2-14"),
    ("settled-against", "2-15"), ("settled-against-above", "2-15"), ("fast-forward", "2-14 2-32"),
    ("delivered", "2-18"), ("delivered-of-a-branch-that-lost", "2-18"), ("delivered-of-a-branch-that-lost-below", "2-18"),
    ("delivered-where-a-device-began", "2-18"),
    ("freeze", "2-25"), ("behind-although-not-live", "2-20"), ("last-second", "2-20"), ("last-second-by-the-monotonic-clock", "2-19 2-20"),
    ("first-sight", "2-20"), ("first-sight-over-a-start", "2-20"), ("future", "2-11"), ("future-within-a-day", "2-19"), ("future-trust", "2-19"),
    ("time-of-another-role", "2-19"), ("time-of-another-role-without-a-clock", "2-19"), ("slow-motion", "2-19"), ("slow-motion-of-trust", "2-19"), ("time-of-trust-corrected", "2-19"),
    ("no-clock", "2-20"), ("clock-after-a-start", "2-20"), ("clock-set-after-a-start", "2-19"), ("expiry", "2-24 2-29"),
    ("clock-of-1970", "2-19"), ("clock-set-back", "2-11 2-19"), ("clock-a-day-behind", "2-11 2-19"),
    ("stolen-beat-key", "2-10 2-24"), ("stolen-beat-key-with-a-clock", "2-11"),
    ("forked-by-an-old-beat", "2-20"), ("below-the-head", "2-25"), ("over-a-hole", "2-20"), ("not-named", "2-25"), ("chain-links", "2-20"),
    ("withheld-trust", "2-20"), ("older-trust", "2-21"), ("silent-about-trust", "2-20"), ("highest-beat", "2-10"), ("no-beats", "2-25"),
    ("good-life", "2-17 2-33"), ("withdrawn-by-id", "2-17"), ("withdrawn-critically", "1-13"), ("withdraw-key-steers-nobody", "2-33"),
    ("withdrawn-on-a-lost-branch", "2-17"), ("withdrawn-as-evidence", "2-17"), ("withdrawal-kept", "2-17"),
    ("withdrawal-kept-over-a-restart", "2-17"), ("withdrawal-outlives-its-key", "2-17"), ("withdrawal-below-a-release", "2-17 2-28"),
    ("withdrawal-below-a-checkpoint", "2-17"), ("withdrawn-before-it-was-read", "2-17"), ("withdrawals-invented", "2-17"), ("withdrawals-kept", "2-17"),
    ("targets", "2-27"), ("not-before", "2-27"), ("shown-to-one", "2-25"), ("waves", "2-27 2-30"), ("deadline", "2-27"), ("wave-and-not-before", "2-27"),
    ("barriers", "2-31"), ("barriers-one-after-the-other", "2-31"), ("barrier-passed", "2-31"), ("barrier-withdrawn", "2-33"),
    ("barrier-of-a-withdrawal", "2-31"), ("barrier-not-due", "2-31"), ("barrier-critical", "1-13"),
    ("applied", "2-32"), ("applied-by-links", "2-32"), ("applied-by-a-checkpoint", "2-32"), ("applied-by-a-link", "2-32"), ("image", "2-3 2-32"), ("critical", "1-13"), ("critical-elsewhere", "1-13"),
    ("log-ends", "2-28"), ("begun", "2-26"), ("trust-expires", "2-24"),
];

pub(super) fn about(name: &str) -> &'static str {
    ABOUT
        .iter()
        .find(|(life, _)| *life == name)
        .map(|(_, numbers)| *numbers)
        .unwrap_or_else(|| panic!("what is {name} about?"))
}

pub(super) fn count() -> usize {
    ABOUT.len()
}
