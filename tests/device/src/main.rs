//! Watches one channel over TLS, and prints each release when it is verified: `device BROKER ANCHOR
//! CA CHANNEL STATE`.

use std::{error::Error, io::Write, pin::pin};

use futures_util::StreamExt;
use tidings_client::{Body, Device, Source, Tls};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [broker, anchor, ca, channel, state] = &arguments[..] else {
        return Err("device BROKER ANCHOR CA CHANNEL STATE".into());
    };
    let source = Source::new([broker.as_str()], anchor)?.with_tls(Tls::from_file(ca)?);
    let mut device = Device::open(source, [channel.as_str()], state)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let mut statements = pin!(device.watch());
            while let Some(statement) = statements.next().await {
                let statement = statement?;
                if let Body::Release(release) = statement.body() {
                    writeln!(
                        std::io::stdout(),
                        "{} {}",
                        statement.serial(),
                        release.version
                    )?;
                }
            }
            Ok(())
        })
}
