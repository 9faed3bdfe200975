//! A device: asks, or is told, and finds the release to run.

use std::{ffi::c_char, pin::Pin, sync::Arc, time::Duration};

use async_stream::stream;
use futures_core::Stream;
use futures_util::StreamExt;
use tidings_client::{Channel, Clear, Freshness as Fresh, Monitor, Serial, Verified};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Mutex,
    time::timeout,
};

use crate::{
    error::{Code, Error, Failed, call},
    options::Options,
    pointer::{self, Place},
    statement::{Statement, Statements},
};

/// How long the end of a device waits for a name server.
const END: Duration = Duration::from_millis(100);

type News = Result<Verified<tidings_client::Statement>, tidings_client::Error>;

/// Follows some channels of one namespace.
pub struct Device {
    /// It has the device while it goes on; before anything else is done with that, it ends.
    watch: Option<Pin<Box<dyn Stream<Item = News> + Send>>>,
    device: Arc<Mutex<tidings_client::Device>>,
    monitor: Monitor,
    runtime: Option<Runtime>,
}

/// Whether anything is held back.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// A live beat names the head.
    Current = 0,
    /// There is something later.
    Behind = 1,
    /// No live beat: news may be held back. So is what is unknown.
    Stale = 2,
    /// Two statements are signed for one place.
    Forked = 3,
}

impl Device {
    fn open(options: &Options) -> Result<Self, Failed> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|e| Failed::new(Code::Failed, format!("cannot start: {e}")))?;
        let device = options.device()?;
        Ok(Self {
            watch: None,
            monitor: device.monitor(),
            device: Arc::new(Mutex::new(device)),
            runtime: Some(runtime),
        })
    }

    fn runtime(&self) -> Result<&Runtime, Failed> {
        let ended = || Failed::new(Code::Failed, "the device has ended");
        self.runtime.as_ref().ok_or_else(ended)
    }

    /// Does something with the device itself; a watch ends before.
    fn with<T>(
        &mut self,
        what: impl AsyncFnOnce(&mut tidings_client::Device) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        self.watch = None;
        let device = self.device.clone();
        self.runtime()?
            .block_on(async { what(&mut *device.lock().await).await })
    }

    /// The next of the watch, which begins with the first call.
    fn told(&mut self, patience: Duration) -> Result<Option<News>, Failed> {
        let mut watch = self.watch.take().unwrap_or_else(|| {
            let device = self.device.clone();
            Box::pin(stream! {
                let mut device = device.lock_owned().await;
                let mut news = std::pin::pin!(device.watch());
                while let Some(item) = news.next().await {
                    yield item;
                }
            })
        });
        let told = self
            .runtime()?
            .block_on(async { timeout(patience, watch.next()).await });
        self.watch = Some(watch);
        Ok(told.ok().flatten())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.watch = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(END);
        }
    }
}

fn channel(name: *const c_char) -> Result<Channel, Failed> {
    let name = pointer::text(name, "channel")?;
    name.parse()
        .map_err(|error| Failed::usage(format!("channel: {error}")))
}

/// Begins a device; no broker is asked yet.
///
/// On success `*device` is the caller's, to be ended with `tidings_device_free`. One thread at a
/// time may use it; the state file is its own until it ends.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_device_open(
    options: *const Options,
    device: *mut *mut Device,
    error: *mut *mut Error,
) -> Code {
    call(error, || {
        let place = Place::new(device, "device")?;
        let options = pointer::object(options);
        let options = options.ok_or_else(|| Failed::usage("options is null"))?;
        place.put(Device::open(options)?);
        Ok(())
    })
}

/// Asks once what is new in all channels. It may last as long as brokers take to answer.
///
/// On success `*statements` are the caller's, to be ended with `tidings_statements_free`; there may
/// be none. They come again after a restart, unless `tidings_device_delivered` was called.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_device_poll(
    device: *mut Device,
    statements: *mut *mut Statements,
    error: *mut *mut Error,
) -> Code {
    call(error, || {
        let place = Place::new(statements, "statements")?;
        let device = pointer::object_mut(device, "device")?;
        let news = device.with(async |device| Ok(device.poll().await?))?;
        place.put(news.as_slice().into());
        Ok(())
    })
}

/// Notes durably that all that was returned so far has been dealt with. A watch ends, and begins
/// anew with the next call; there asking for the next one says the same of the one before.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_device_delivered(device: *mut Device, error: *mut *mut Error) -> Code {
    call(error, || {
        let device = pointer::object_mut(device, "device")?;
        device.with(async |device| Ok(device.save()?))
    })
}

/// Waits for the next statement: catches up, and is told from then on. `TIDINGS_CODE_NOTHING` says
/// that none came within so many milliseconds; call it again. An error ends nothing either: the
/// next call goes on with other brokers.
///
/// On success `*statement` is the caller's, to be ended with `tidings_statement_free`.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_device_watch(
    device: *mut Device,
    milliseconds: u32,
    statement: *mut *mut Statement,
    error: *mut *mut Error,
) -> Code {
    call(error, || {
        let place = Place::new(statement, "statement")?;
        let device = pointer::object_mut(device, "device")?;
        match device.told(Duration::from_millis(milliseconds.into()))? {
            Some(news) => place.put((&news?).into()),
            None => return Err(Failed::new(Code::Nothing, "nothing new came in this time")),
        }
        Ok(())
    })
}

/// The release to run in a channel now: brokers are asked this moment, and what is held back or
/// withdrawn is none. `TIDINGS_CODE_NOTHING`, `TIDINGS_CODE_WAITING` and the others say why there
/// is none.
///
/// On success `*statement` is the caller's, to be ended with `tidings_statement_free`. Ask again
/// before the machine goes down for it, and say with `tidings_device_applied` when it runs.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_device_next(
    device: *mut Device,
    name: *const c_char,
    statement: *mut *mut Statement,
    error: *mut *mut Error,
) -> Code {
    call(error, || {
        let place = Place::new(statement, "statement")?;
        let channel = channel(name)?;
        let device = pointer::object_mut(device, "device")?;
        let clear = device.with(async |device| Ok(device.target(&channel).await?))?;
        let (code, text) = match clear {
            Clear::Apply(statement) => {
                place.put((&statement).into());
                return Ok(());
            }
            Clear::Nothing {
                next: Some((serial, due)),
                ..
            } => (Code::Waiting, format!("{channel} {serial} is due at {due}")),
            Clear::Nothing { applied, .. } => {
                let applied = applied.map_or("nothing".into(), |serial| serial.to_string());
                let text = format!("{applied} is applied, and nothing newer is for this machine");
                (Code::Nothing, format!("{channel}: {text}"))
            }
        };
        Err(Failed::new(code, text))
    })
}

/// Notes durably that a release runs on this machine: what comes next follows it.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_device_applied(
    device: *mut Device,
    name: *const c_char,
    serial: u32,
    error: *mut *mut Error,
) -> Code {
    call(error, || {
        let channel = channel(name)?;
        let serial = Serial::new(serial)
            .ok_or_else(|| Failed::usage(format!("serial: {serial} is none")))?;
        let device = pointer::object_mut(device, "device")?;
        device.with(async |device| Ok(device.note_applied_serial(&channel, serial).await?))
    })
}

/// Whether anything is held back in a channel, as far as is known at this moment; `head`, if it
/// is not null, gets the serial of the head, or 0.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_device_freshness(
    device: *const Device,
    name: *const c_char,
    head: *mut u32,
) -> Freshness {
    pointer::write(head, 0);
    let mut freshness = Freshness::Stale;
    call(std::ptr::null_mut(), || {
        let (Some(device), Ok(channel)) = (pointer::object(device), channel(name)) else {
            return Ok(());
        };
        let known = device.monitor.head(&channel);
        pointer::write(head, known.map_or(0, |head| head.serial.number()));
        freshness = match device.monitor.freshness(&channel) {
            Fresh::Current { .. } => Freshness::Current,
            Fresh::Behind { .. } => Freshness::Behind,
            Fresh::Stale { .. } => Freshness::Stale,
            Fresh::Forked => Freshness::Forked,
        };
        Ok(())
    });
    freshness
}

/// Ends a device, and its connection. Null is none.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_device_free(device: *mut Device) {
    pointer::free(device);
}
