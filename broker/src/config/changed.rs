//! What of a configuration only a restart takes up.

use super::Config;

impl Config {
    /// The keys in which another one differs, and that only a restart takes up: all but the log
    /// level.
    pub fn differing(&self, other: &Self) -> Vec<&'static str> {
        macro_rules! differing {
            ($($key:ident),+) => {
                [$((stringify!($key), self.$key != other.$key)),+]
            };
        }
        let all = differing!(
            name,
            data_dir,
            anchors,
            posting,
            listen,
            tls,
            mirror,
            cluster,
            restore_from,
            feed,
            peer,
            access,
            slot,
            fleetlock,
            admin,
            beat,
            retention,
            limits,
            quota
        );
        let format = ("log.format", self.log.format != other.log.format);
        let all = all.into_iter().chain([format]);
        all.filter_map(|(key, differs)| differs.then_some(key))
            .collect()
    }
}
