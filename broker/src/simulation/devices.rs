//! Devices: the library as it is, with a state file that outlives them, and clocks that are wrong.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use tidings_client::{
    Channel, Clear, Device, Error, Monitor, Pace, Source, Start, State,
    simulated::{self, within},
};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{CHANNELS, DEVICES, FIRST_DEVICE, Simulation, oracle::Followed};

/// How long asking one broker may take.
const ASK: Duration = Duration::from_secs(20);

/// A device, whether it runs or not.
pub(super) struct Machine {
    file: simulated::File,
    source: Source,
    start: Start,
    life: Option<Life>,
    boot: u64,
    followed: Arc<Mutex<Followed>>,
}

struct Life {
    monitor: Monitor,
    ended: CancellationToken,
}

fn lock(of: &Mutex<Followed>) -> MutexGuard<'_, Followed> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    pub(super) fn new(source: Source, start: Start, all_is_kept: bool) -> Self {
        Self {
            file: simulated::File::default(),
            source,
            start,
            life: None,
            boot: 1,
            followed: Arc::new(Mutex::new(Followed {
                behind: 2,
                may_go_back: start == Start::Newest || !all_is_kept,
                ..Followed::default()
            })),
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.life.is_some()
    }
}

/// Starts a device with what its state file has.
pub(super) fn start(sim: &Arc<Simulation>, index: usize) {
    let node = FIRST_DEVICE + index;
    simulated::as_node(node, || {
        let mut machines = sim.machines();
        let machine = &mut machines[index];
        let state = match State::open_simulated(&machine.file, &sim.anchor) {
            Ok(state) => state,
            Err(error) => return sim.oracle.fail(format!("device {index}: {error}")),
        };
        let monitor = state.monitor();
        let device = Device::with_state(machine.source.clone(), CHANNELS, state).unwrap();
        let device = device.with_start(machine.start).with_pace(Pace {
            ask: ASK,
            ..Pace::default()
        });
        let ended = CancellationToken::new();
        let (stop, followed) = (ended.clone(), machine.followed.clone());
        let living = live(sim.clone(), index, device, followed);
        tokio::spawn(within(node, async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = living => {}
            }
        }));
        machine.life = Some(Life { monitor, ended });
    });
}

/// A device ends in the middle of what it does; with `power` its machine does.
pub(super) fn crash(sim: &Simulation, index: usize, power: bool) {
    let (mut machines, node) = (sim.machines(), FIRST_DEVICE + index);
    let machine = &mut machines[index];
    let Some(life) = machine.life.take() else {
        return;
    };
    life.ended.cancel();
    sim.oracle.count(|counts| counts.restarts += 1);
    if power {
        machine.file.crash();
        machine.boot += 1;
        let (boot, booted) = (machine.boot, simulated::elapsed().unwrap_or_default());
        simulated::set_clocks(node, |clocks| {
            (clocks.boot, clocks.booted) = (boot, booted);
        });
    }
}

/// The clock of a device is set.
pub(super) fn set_clock(sim: &Simulation, index: usize, ahead: i64) {
    simulated::set_clocks(FIRST_DEVICE + index, |clocks| clocks.ahead = ahead);
    let machines = sim.machines();
    let mut followed = lock(&machines[index].followed);
    // What is slow by nature is behind too.
    let behind = 2 + (-ahead).max(0).cast_unsigned();
    followed.behind = followed.behind.max(behind);
}

async fn live(
    sim: Arc<Simulation>,
    index: usize,
    mut device: Device,
    followed: Arc<Mutex<Followed>>,
) {
    loop {
        sleep(Duration::from_millis(2_000 + sim.below(14_000) as u64)).await;
        match sim.below(3) {
            0 => watch(&sim, index, &mut device, &followed).await,
            _ => poll(&sim, index, &mut device, &followed).await,
        }
        if sim.below(3) == 0 {
            let channel = CHANNELS[sim.below(CHANNELS.len())].parse().unwrap();
            apply(&sim, index, &mut device, &channel, &followed).await;
        }
    }
}

async fn poll(sim: &Simulation, index: usize, device: &mut Device, followed: &Mutex<Followed>) {
    sim.oracle.count(|counts| counts.polls += 1);
    match device.poll().await {
        Ok(news) => {
            for statement in news {
                let mut followed = lock(followed);
                sim.oracle.note_delivered(index, &mut followed, &statement);
            }
        }
        Err(error) => {
            tracing::debug!(device = index, %error, "poll");
            sim.oracle.count(|counts| counts.failed_polls += 1);
        }
    }
}

/// Is told for a while.
async fn watch(sim: &Simulation, index: usize, device: &mut Device, followed: &Mutex<Followed>) {
    sim.oracle.count(|counts| counts.watches += 1);
    let until = Instant::now() + sim.millis([2_000, 20_000, 120_000][sim.below(3)]);
    let mut told = pin!(device.watch());
    while let Ok(Some(told)) = timeout_at(until, told.next()).await {
        match told {
            Ok(statement) => {
                sim.oracle.count(|counts| counts.told += 1);
                let mut followed = lock(followed);
                sim.oracle.note_delivered(index, &mut followed, &statement);
            }
            Err(error) => tracing::debug!(device = index, %error, "watch"),
        }
    }
}

/// Applies the release to run, if there is one.
async fn apply(
    sim: &Simulation,
    index: usize,
    device: &mut Device,
    channel: &Channel,
    followed: &Mutex<Followed>,
) {
    let clear = match device.target(channel).await {
        Ok(Clear::Apply(release)) => release,
        Ok(Clear::Nothing { .. }) => return,
        Err(error) => {
            tracing::debug!(device = index, %error, "target");
            return sim.oracle.count(|counts| counts.not_now += 1);
        }
    };
    let monitor = device.monitor();
    let install = async |cleared: &mut tidings_client::Clearance<'_>| {
        let (head, mut followed) = (monitor.head(channel), lock(followed));
        sim.oracle.note_applied(index, &mut followed, head, cleared);
        Ok::<_, Error>(())
    };
    if let Err(error) = device.apply(channel, clear.serial(), install).await {
        tracing::debug!(device = index, %error, "apply");
    }
}

/// Compares what devices say with what is true.
pub(super) fn look(sim: &Simulation) {
    let machines = sim.machines();
    for (index, machine) in machines.iter().enumerate() {
        let Some(life) = &machine.life else { continue };
        simulated::as_node(FIRST_DEVICE + index, || {
            for channel in &sim.channels {
                let (head, freshness) =
                    (life.monitor.head(channel), life.monitor.freshness(channel));
                let followed = lock(&machine.followed);
                sim.oracle.judge(index, &followed, channel, head, freshness);
            }
        });
    }
}

/// What a device still lacks, if it does.
pub(super) fn lacks(sim: &Simulation, index: usize) -> Option<String> {
    let machines = sim.machines();
    let Some(life) = &machines[index].life else {
        return Some("it does not run".into());
    };
    let heads = sim.oracle.heads();
    let lacking = |channel: &Channel| {
        let there = life.monitor.head(channel);
        let there = there.map_or(0, |head| head.serial.number());
        let freshness = life.monitor.freshness(channel);
        let wanted = heads.get(channel).copied().unwrap_or(0);
        (there < wanted || !freshness.is_current())
            .then(|| format!("{channel} is {freshness} at {there} of {wanted}"))
    };
    simulated::as_node(FIRST_DEVICE + index, || {
        sim.channels.iter().find_map(lacking)
    })
}

/// All of them.
pub(super) fn all() -> std::ops::Range<usize> {
    0..DEVICES.len()
}
