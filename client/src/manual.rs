//! Manual pages of commands: what clap knows of one, and what it does not.

use std::{io, path::PathBuf};

use clap::{Args, Command};

use crate::file;

/// Which pages are wanted.
#[derive(Args)]
pub struct Man {
    /// The command; without one, the page of the program
    command: Vec<String>,
    /// Write all pages into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    into: Option<PathBuf>,
}

impl Man {
    /// Prints one page, or writes all; false if there is no such command.
    ///
    /// # Errors
    /// If a page cannot be written; the file is named.
    pub fn run(
        self,
        manual: &Manual,
        program: Command,
        print: impl FnOnce(&[u8]),
    ) -> io::Result<bool> {
        let Some(directory) = self.into else {
            let page = manual.page(program, &self.command)?;
            let found = page.is_some();
            page.map(|(_, text)| text).as_deref().map(print);
            return Ok(found);
        };
        for (name, text) in manual.all(program)? {
            let path = directory.join(name);
            let context = |error: io::Error| {
                io::Error::new(
                    error.kind(),
                    format!("cannot write {}: {error}", path.display()),
                )
            };
            file::replace(&path, &text, 0o666).map_err(context)?;
        }
        Ok(true)
    }
}

/// What the pages of a program say beside its command line.
pub struct Manual {
    /// The section that they belong to.
    pub section: &'static str,
    /// Variables that no option stands for, and what each does.
    pub environment: &'static [(&'static str, &'static str)],
    /// Files, and what each is.
    pub files: &'static [(&'static str, &'static str)],
    /// Exit codes, and what each means.
    pub exits: Vec<(u8, String)>,
    /// The command (without the program's name), what is done, and the line that does it.
    pub examples: &'static [(&'static str, &'static str, &'static str)],
    /// Pages of other programs and of files: `NAME(SECTION)`.
    pub see_also: &'static [&'static str],
}

/// A page: its file's name, and its text.
pub type Page = (String, Vec<u8>);

impl Manual {
    /// The page of a command, if there is one: `["trust", "init"]`, or the program's own.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn page(&self, program: Command, path: &[String]) -> io::Result<Option<Page>> {
        let mut command = built(program);
        let mut parents = Vec::new();
        for name in path {
            let Some(next) = command.find_subcommand(name).cloned() else {
                return Ok(None);
            };
            parents.push(display(&command));
            command = next;
        }
        self.write(&command, &parents, &path.join(" ")).map(Some)
    }

    /// The pages of a program and of all its commands that are shown.
    ///
    /// # Errors
    /// If one cannot be written.
    pub fn all(&self, program: Command) -> io::Result<Vec<Page>> {
        let mut pages = Vec::new();
        self.below(&built(program), &mut Vec::new(), "", &mut pages)?;
        Ok(pages)
    }

    fn below(
        &self,
        command: &Command,
        parents: &mut Vec<String>,
        path: &str,
        pages: &mut Vec<Page>,
    ) -> io::Result<()> {
        pages.push(self.write(command, parents, path)?);
        parents.push(display(command));
        for next in command.get_subcommands().filter(|next| !next.is_hide_set()) {
            let path = format!("{path} {}", next.get_name());
            self.below(next, parents, path.trim_start(), pages)?;
        }
        parents.pop();
        Ok(())
    }

    fn write(&self, command: &Command, parents: &[String], path: &str) -> io::Result<Page> {
        let name = display(command);
        let version = command.get_version().unwrap_or(env!("CARGO_PKG_VERSION"));
        let man = clap_mangen::Man::new(command.clone().name(name.clone()))
            .title(name.to_uppercase())
            .section(self.section)
            .source(format!("Tidings {version}"))
            .manual("Tidings");
        let mut text = Vec::new();
        man.render_title(&mut text)?;
        man.render_name_section(&mut text)?;
        man.render_synopsis_section(&mut text)?;
        man.render_description_section(&mut text)?;
        if command.get_arguments().any(|arg| !arg.is_hide_set()) {
            man.render_options_section(&mut text)?;
        }
        if command.get_subcommands().any(|next| !next.is_hide_set()) {
            man.render_subcommands_section(&mut text)?;
        }
        let mut more = String::new();
        let exits = self.exits.iter();
        let exits = exits.map(|(code, text)| (code.to_string(), text));
        section(&mut more, "EXIT STATUS", exits);
        self.environment_of(command, &mut more);
        section(&mut more, "FILES", self.files.iter().copied());
        let examples = self.examples.iter().filter(|example| example.0 == path);
        for (index, (_, what, line)) in examples.enumerate() {
            if index == 0 {
                more.push_str(".SH EXAMPLES\n");
            }
            more.push_str(&format!(
                "{}:\n.PP\n.EX\n    {}\n.EE\n.PP\n",
                escaped(what),
                escaped(line)
            ));
        }
        let parents = parents
            .iter()
            .map(|name| format!("{name}({})", self.section));
        let see: Vec<String> = parents
            .chain(self.see_also.iter().map(|page| (*page).to_owned()))
            .map(|page| bold(&page))
            .collect();
        more.push_str(&format!(".SH SEE ALSO\n{}\n", see.join(",\n")));
        text.extend(more.into_bytes());
        Ok((format!("{name}.{}", self.section), text))
    }

    fn environment_of(&self, command: &Command, text: &mut String) {
        let of_options = command.get_arguments().filter_map(|arg| {
            let variable = arg.get_env()?.to_string_lossy().into_owned();
            let option = arg.get_long()?;
            Some((variable, format!("is used where --{option} is not given")))
        });
        let fixed = self.environment.iter();
        let fixed = fixed.map(|(name, what)| ((*name).to_owned(), (*what).to_owned()));
        section(text, "ENVIRONMENT", of_options.chain(fixed));
    }
}

/// With everything that a command takes over from its parent, and names for pages.
fn built(program: Command) -> Command {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    program
}

/// `tidings-trust-init`, as clap names it when a command is built.
fn display(command: &Command) -> String {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned()
}

fn section(
    text: &mut String,
    title: &str,
    entries: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>,
) {
    let mut entries = entries.into_iter().peekable();
    if entries.peek().is_some() {
        text.push_str(&format!(".SH {title}\n"));
    }
    for (name, what) in entries {
        let (name, what) = (escaped(name.as_ref()), escaped(what.as_ref()));
        text.push_str(&format!(".TP\n\\fB{name}\\fR\n{what}\n"));
    }
}

fn bold(page: &str) -> String {
    let (name, section) = page.split_once('(').unwrap_or((page, ""));
    let section = match section {
        "" => String::new(),
        section => format!("({section}"),
    };
    format!("\\fB{}\\fR{section}", escaped(name))
}

/// As text of roff: nothing in it is a command.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}
