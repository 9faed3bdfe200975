//! A real browser, driven by WebDriver: Chromium without a window, which reaches this machine and
//! nothing else.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use base64ct::{Base64, Encoding};
use serde_json::{Value, json};

/// How long one answer of the driver may take: a browser's start on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a page is looked at while something is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// A browser with one page.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    /// What the driver says: it would end if that was not wanted any more.
    _output: BufReader<ChildStdout>,
    _profile: tempfile::TempDir,
}

fn ask(address: SocketAddr, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
    let body = match method {
        "POST" => body.to_string(),
        _ => String::new(),
    };
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    // It keeps connections, whatever it is asked.
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let header = line.trim_end().to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        if header.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut answer: Value = serde_json::from_slice(&body)?;
    let value = answer["value"].take();
    if let Some(error) = value.get("error") {
        bail!("{method} {path}: {error}: {}", value["message"]);
    }
    Ok(value)
}

impl Browser {
    /// Starts one; `names`: names that lead to this machine, beside `localhost`.
    ///
    /// # Errors
    /// If Chromium or its driver is not here.
    pub fn start(names: &[&str]) -> anyhow::Result<Self> {
        let program = env::var_os("TIDINGS_CHROMEDRIVER").unwrap_or_else(|| "chromedriver".into());
        let missing = "cannot run chromedriver: install Debian's packages chromium and \
            chromium-driver, or set TIDINGS_CHROMEDRIVER";
        let mut driver = Command::new(program)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context(missing)?;
        let mut output = BufReader::new(driver.stdout.take().context("no output")?);
        let lines = output.by_ref().lines().map_while(Result::ok);
        let port = lines.into_iter().find_map(|line| {
            let (_, port) = line.split_once("successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let profile = tempfile::tempdir()?;
        let mut browser = Self {
            driver,
            address: ([127, 0, 0, 1], port.context("the driver names no port")?).into(),
            session: String::new(),
            _output: output,
            _profile: profile,
        };
        let mapped = names.iter().map(|name| format!("MAP {name} 127.0.0.1, "));
        let mapped: String = mapped.collect();
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--disable-gpu".into(),
            "--disable-dev-shm-usage".into(),
            "--disable-background-networking".into(),
            "--disable-component-update".into(),
            "--disable-sync".into(),
            "--no-first-run".into(),
            "--hide-scrollbars".into(),
            format!(
                "--host-resolver-rules={mapped}MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE \
                 127.0.0.1"
            ),
            format!("--user-data-dir={}", browser._profile.path().display()),
        ];
        if rustix::process::geteuid().is_root() {
            // Its sandbox wants another user.
            arguments.push("--no-sandbox".into());
        }
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = ask(browser.address, "POST", "/session", &wanted).context(missing)?;
        browser.session = session["sessionId"].as_str().context("no session")?.into();
        Ok(browser)
    }

    fn post(&self, what: &str, body: &Value) -> anyhow::Result<Value> {
        let path = format!("/session/{}/{what}", self.session);
        ask(self.address, "POST", &path, body)
    }

    /// Opens an address.
    ///
    /// # Errors
    /// If the browser cannot.
    pub fn open(&self, url: &str) -> anyhow::Result<()> {
        self.post("url", &json!({"url": url})).map(drop)
    }

    /// What a script returns that runs in the page.
    ///
    /// # Errors
    /// If it fails.
    pub fn run(&self, script: &str) -> anyhow::Result<Value> {
        self.post("execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression is true in the page.
    ///
    /// # Errors
    /// If it never is.
    pub fn until(&self, what: &str, expression: &str) -> anyhow::Result<Duration> {
        let (began, script) = (Instant::now(), format!("return Boolean({expression})"));
        while self.run(&script)? != true {
            ensure!(
                began.elapsed() < PATIENCE,
                "{what}: this does not happen; the page says {}",
                self.run("return document.body.innerText")?
            );
            std::thread::sleep(LOOK);
        }
        Ok(began.elapsed())
    }

    /// A command of the browser's own protocol.
    ///
    /// # Errors
    /// If it refuses.
    pub fn devtools(&self, command: &str, parameters: Value) -> anyhow::Result<Value> {
        let body = json!({"cmd": command, "params": parameters});
        self.post("goog/cdp/execute", &body)
    }

    /// Types into the element that a selector finds.
    ///
    /// # Errors
    /// If there is none.
    pub fn type_into(&self, selector: &str, text: &str) -> anyhow::Result<()> {
        let element = self.find(selector)?;
        let what = format!("element/{element}/value");
        self.post(&what, &json!({"text": text})).map(drop)
    }

    /// Clicks the element that a selector finds.
    ///
    /// # Errors
    /// If there is none.
    pub fn click(&self, selector: &str) -> anyhow::Result<()> {
        let element = self.find(selector)?;
        self.post(&format!("element/{element}/click"), &json!({}))
            .map(drop)
    }

    fn find(&self, selector: &str) -> anyhow::Result<String> {
        let found = self.post(
            "element",
            &json!({"using": "css selector", "value": selector}),
        )?;
        let id = found.as_object().and_then(|found| found.values().next());
        Ok(id.and_then(Value::as_str).context("no element")?.into())
    }

    /// What scripts and the browser itself have complained about since the last look.
    ///
    /// # Errors
    /// If the driver does not say.
    pub fn complaints(&self) -> anyhow::Result<Vec<String>> {
        let entries = self.post("se/log", &json!({"type": "browser"}))?;
        let text = |entry: &Value| entry["message"].as_str().unwrap_or_default().to_owned();
        Ok(entries.as_array().into_iter().flatten().map(text).collect())
    }

    /// Writes a picture of the whole page.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn picture(&self, path: &Path) -> anyhow::Result<()> {
        let made = self.devtools(
            "Page.captureScreenshot",
            json!({"format": "png", "captureBeyondViewport": true}),
        )?;
        let octets = made["data"].as_str().context("no picture")?;
        let octets = Base64::decode_vec(octets).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(fs::write(path, octets)?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // The browser ends with its session; where that fails, the driver takes it along.
            let path = format!("/session/{}", self.session);
            let _ = ask(self.address, "DELETE", &path, &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
