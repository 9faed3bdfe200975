//! The status page in a real browser: a tree of brokers, a channel that comes while it is looked
//! at, text that would like to be more than text, a fork, a telephone, and ten thousand channels.

mod stage;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};
use tidings_client::{Channel, Release};
use tidings_tests::{http, tidings, webdriver::Browser};

use stage::{Running, Tree};

/// A telephone.
const NARROW: u32 = 360;
/// How long `/status` may take with all channels, a debug build on a busy machine included.
const STATUS: Duration = Duration::from_secs(5);
/// The least contrast of text and what lies below it (WCAG 2, level AA).
const CONTRAST: f64 = 4.5;
/// Text that would like to be more.
const HOSTILE: &str =
    "<img src=x onerror=\"window.owned=1\"><script>window.owned=1</script>&lt;b&gt;";

/// The name of a broker that would like the same.
const HOP: &str = "<svg/onload=window.owned=1>";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Channels of the large broker
    #[arg(long, default_value_t = 10_000)]
    channels: usize,
    /// Where pictures go
    #[arg(long, default_value = "target/page")]
    pictures: PathBuf,
}

/// The state of a channel, as the page words it.
fn row(channel: &str) -> String {
    format!(
        "[...document.querySelectorAll('#channels tbody tr')].find((row) => \
         row.cells[0].textContent === '{channel}')"
    )
}

fn says(channel: &str, text: &str) -> String {
    format!(
        "({}?.textContent ?? '').includes({})",
        row(channel),
        json!(text)
    )
}

struct Trial {
    browser: Browser,
    pictures: PathBuf,
}

impl Trial {
    fn picture(&self, name: &str) -> anyhow::Result<()> {
        self.browser.picture(&self.pictures.join(name))
    }

    /// Nothing failed in the page, and nothing that others wrote has become more than text.
    fn is_text(&self) -> anyhow::Result<()> {
        let owned = self.browser.run(
            "return window.owned !== undefined || document.querySelector('main img, main script, \
             main b, main svg') !== null",
        )?;
        ensure!(owned == false, "hostile text has become markup");
        let complaints = self.browser.complaints()?;
        ensure!(complaints.is_empty(), "{complaints:?}");
        Ok(())
    }

    /// How wide and high the window is, and which colours are preferred.
    fn looks(&self, width: u32, dark: bool) -> anyhow::Result<()> {
        let (height, mobile) = (if width > NARROW { 900 } else { 740 }, width == NARROW);
        self.browser.devtools(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}),
        )?;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.browser
            .devtools("Emulation.setEmulatedMedia", json!({"features": features}))?;
        let scrolls = self.browser.run(
            "return [document.documentElement.scrollWidth, window.innerWidth, \
             [...document.querySelectorAll('body *')].filter((one) => \
             one.getBoundingClientRect().right > window.innerWidth + 1 && \
             getComputedStyle(one).position !== 'absolute' && !one.closest('thead')).map((one) => \
             one.tagName + ' ' + one.textContent.slice(0, 40)).slice(0, 5)]",
        )?;
        ensure!(
            scrolls[0].as_u64() <= scrolls[1].as_u64() && scrolls[2] == json!([]),
            "at {width} pixels the page scrolls sideways: {scrolls}"
        );
        let worst = self.browser.run(CONTRASTS)?;
        let ratio = worst[0].as_f64().context("no text was found")?;
        let ground = worst[2].as_f64().context("no ground was found")?;
        ensure!(
            dark == (ground < 0.2),
            "{scheme}: the ground is {ground:.2}"
        );
        ensure!(
            ratio >= CONTRAST,
            "{scheme}: the contrast of {} is {ratio:.2}, below {CONTRAST}",
            worst[1]
        );
        println!("{width} pixels, {scheme}: the least contrast is {ratio:.2}");
        Ok(())
    }
}

/// The least contrast of all text that can be seen, and where (WCAG 2).
const CONTRASTS: &str = r#"
const parse = (text) => (text.match(/[\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => {
  const part = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
};
const ground = (one) => {
  for (; one; one = one.parentElement) {
    const colour = parse(getComputedStyle(one).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
let worst = [null, "", light(ground(document.body))];
for (const one of document.querySelectorAll("body *")) {
  const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || one.tagName === "SCRIPT" || one.disabled || !one.checkVisibility()) continue;
  const [a, b] = [light(parse(getComputedStyle(one).color)), light(ground(one))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (worst[0] === null || ratio < worst[0]) worst.splice(0, 2, ratio, one.tagName + " " + one.textContent.slice(0, 60));
}
return worst;
"#;

/// The tree at a leaf, and what comes while it is looked at.
async fn live(trial: &Trial, tree: &mut Tree) -> anyhow::Result<()> {
    let browser = &trial.browser;
    browser.open(&tree.leaf.page())?;
    browser.until(
        "the page is live",
        "document.getElementById('live').textContent.startsWith('● live')",
    )?;
    browser.until(
        "the channel is current",
        &says("test.os.stable", "✔ CURRENTbeat ends in "),
    )?;
    browser.until(
        "one without beats is not",
        &says("test.lab", "– UNCONFIRMED"),
    )?;
    let tiers = "JSON.stringify([...document.querySelectorAll('#brokers .name')].map((one) => \
        one.textContent))";
    browser.until(
        "the tree has three tiers",
        &format!(
            "{tiers} === '[\"origin.example.org\",\"mirror.example.org\",\"leaf.example.org\"]'"
        ),
    )?;
    browser.run("window.before = 1")?;
    let hostile = Release {
        version: "<b>1</b>".into(),
        summary: Some(HOSTILE.into()),
        ..Release::default()
    };
    let channel: Channel = "test.app.stable".parse()?;
    let release = tree.realm.release_with(&channel, None, hostile, &["ann"]);
    tree.publisher.publish(&release).await?;
    let took = browser.until("a channel appears", &says("test.app.stable", HOSTILE))?;
    println!(
        "a channel is on the page of the third tier {} ms after it was published",
        took.as_millis()
    );
    browser.until("and is current", &says("test.app.stable", "✔ CURRENT"))?;
    ensure!(
        browser.run("return window.before")? == 1,
        "the page was loaded again"
    );
    trial.is_text()?;
    trial.looks(1280, false)?;
    trial.picture("leaf-light.png")
}

/// The origin's page: slots, and a fork with its evidence.
async fn fork(trial: &Trial, tree: &mut Tree) -> anyhow::Result<()> {
    let browser = &trial.browser;
    browser.open(&tree.origin.page())?;
    browser.until(
        "it is ready",
        "document.getElementById('verdict').textContent === '✔ Ready'",
    )?;
    browser.until(
        "nodes are shown",
        "document.getElementById('slots').textContent.includes('web-01.example.org')",
    )?;
    tree.fork().await?;
    browser.until("the fork is shown", &says("test.os.forked", "✖ FORKED"))?;
    browser.until(
        "it is not ready",
        "document.getElementById('verdict').textContent === '✖ Not ready'",
    )?;
    browser.until(
        "its evidence is offered",
        "document.querySelector('#forks a[download]') !== null",
    )?;
    let link =
        browser.run("return document.querySelector('#forks a[download]').getAttribute('href')")?;
    let (status, evidence) = http::get(tree.origin.admin, link.as_str().context("no link")?)?;
    ensure!(status == 200, "{link}: {status}");
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("evidence"), evidence)?;
    let proof = tidings(directory.path())
        .args([
            "verify",
            "evidence",
            "--anchor",
            &tree.realm.anchor.to_string(),
        ])
        .output()?;
    let said = [proof.stdout, proof.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(said.contains("fork"), "the evidence proves nothing: {said}");
    trial.is_text()?;
    for (width, dark, name) in [
        (1280, false, "origin-light.png"),
        (1280, true, "origin-dark.png"),
        (NARROW, false, "telephone-light.png"),
        (NARROW, true, "telephone-dark.png"),
    ] {
        trial.looks(width, dark)?;
        trial.picture(name)?;
    }
    // Without colour every state is still a sign and a word.
    let words = browser.run(
        "return [...document.querySelectorAll('.state')].every((one) => \
         /^\\S+ .*[A-Za-z]/u.test(one.textContent))",
    )?;
    ensure!(words == true, "a state has no word");
    trial.looks(1280, false)?;
    browser.devtools(
        "Emulation.setEmulatedVisionDeficiency",
        json!({"type": "achromatopsia"}),
    )?;
    trial.picture("origin-grey.png")?;
    browser.devtools(
        "Emulation.setEmulatedVisionDeficiency",
        json!({"type": "none"}),
    )?;
    Ok(())
}

/// The policy of the page is at work, and no other name leads to it.
fn guarded(trial: &Trial, tree: &Tree) -> anyhow::Result<()> {
    let browser = &trial.browser;
    let made = browser.run(
        "try { document.body.innerHTML = '<p>'; return 'markup'; \
         } catch (error) { return error.name; }",
    )?;
    ensure!(made == "TypeError", "text can become markup: {made}");
    let ran = browser.run(
        "const script = document.createElement('script'); try { script.text = 'window.owned = 1'; \
         } catch { return 'no'; } document.body.append(script); \
         return window.owned === 1 ? 'ran' : 'no';",
    )?;
    ensure!(ran == "no", "a script of others runs");
    browser.open(&format!(
        "http://rebound.example:{}/",
        tree.origin.admin.port()
    ))?;
    let text = browser.run("return document.body.innerText")?;
    let text = text.as_str().unwrap_or_default();
    ensure!(
        text.contains("this broker is not asked as") && !text.contains("test.os"),
        "{text}"
    );
    browser.complaints().map(drop)
}

/// A broker that ends and comes back.
fn away(trial: &Trial, tree: &mut Tree) -> anyhow::Result<()> {
    let browser = &trial.browser;
    browser.open(&tree.leaf.page())?;
    let is_live = "document.getElementById('live').textContent.startsWith('● live')";
    browser.until("the page is live", is_live)?;
    let daemon = tree.leaf.daemon.take().context("it does not run")?;
    daemon.signal("TERM")?;
    browser.until(
        "the page says so",
        "document.getElementById('live').textContent.startsWith('✖ the broker does not answer')",
    )?;
    daemon.wait(Duration::from_secs(60))?;
    tree.leaf.daemon = Some(tree.leaf.fixture.start()?);
    browser.until("the page is live again", is_live)?;
    browser.complaints().map(drop)
}

/// How long `/status` takes, which shows a page of many channels.
async fn answers(large: &Running, channels: usize) -> anyhow::Result<()> {
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..9 {
        let began = Instant::now();
        let (status, text) = http::get(large.admin, "/status")?;
        times.push(began.elapsed());
        let said: Value = serde_json::from_str(&text)?;
        let shown = said["channels"].as_array().map_or(0, Vec::len);
        ensure!(
            status == 200 && shown == 100 && text.len() < 200_000,
            "{status}: {shown} channels in {} octets",
            text.len()
        );
        // Some of them are counted anew.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    times.sort();
    println!(
        "/status with {channels} channels: median {} ms, longest {} ms",
        times[4].as_millis(),
        times[8].as_millis()
    );
    ensure!(times[8] < STATUS, "/status took {:?}", times[8]);
    Ok(())
}

/// A broker with many channels: a filter, pages, and what the page costs it.
async fn many(trial: &Trial, channels: usize) -> anyhow::Result<()> {
    let large = stage::large(channels, HOP).await?;
    answers(&large, channels).await?;
    let browser = &trial.browser;
    browser.open(&large.page())?;
    let hop = format!(
        "document.getElementById('brokers').textContent.includes({})",
        json!(HOP)
    );
    browser.until("the way is text", &hop)?;
    let rows = |count: usize| {
        format!("document.querySelectorAll('#channels tbody tr').length === {count}")
    };
    browser.until("a page of channels is shown", &rows(100))?;
    let daemon = large.daemon.as_ref().context("it does not run")?;
    let (cpu, watched) = (daemon.cpu_seconds()?, Instant::now());
    browser.type_into("#filter", "machine-0042")?;
    let took = browser.until("the filter finds ten", &rows(10))?;
    println!(
        "the filter has found 10 of {channels} within {} ms",
        took.as_millis()
    );
    browser.run(
        "const filter = document.getElementById('filter'); filter.value = ''; \
        filter.dispatchEvent(new Event('input'))",
    )?;
    browser.until("all are shown again", &rows(100))?;
    browser.click("#next")?;
    browser.until(
        "the next page begins where the first ended",
        &format!("!({})", row("test.p00.machine-00000.stable")),
    )?;
    println!(
        "with the page open the broker used {:.0} % of a core",
        100.0 * (daemon.cpu_seconds()? - cpu) / watched.elapsed().as_secs_f64()
    );
    trial.is_text()?;
    trial.looks(1280, false)?;
    trial.picture("many.png")
}

#[tokio::main]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    fs::create_dir_all(&arguments.pictures)?;
    let began = Instant::now();
    let trial = Trial {
        browser: Browser::start(&["rebound.example"])?,
        pictures: arguments.pictures,
    };
    let mut tree = Tree::new().await?;
    tree.fill().await?;
    live(&trial, &mut tree).await?;
    fork(&trial, &mut tree).await?;
    guarded(&trial, &tree)?;
    away(&trial, &mut tree)?;
    many(&trial, arguments.channels).await?;
    println!(
        "the page is as it should be: {:.0} s; pictures are in {}",
        began.elapsed().as_secs_f64(),
        trial.pictures.display()
    );
    Ok(())
}
