//! The library part of the program `ws-doctor`: says why a WebSocket handshake fails, and what to
//! do.
//!
//! [`main`] is the program. The other items are public for its tests, and are not a stable API.

#![expect(
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    unnameable_types,
    reason = "only the tests of the program use them"
)]

pub mod body;
mod certificate;
pub mod codes;
pub mod doctor;
pub mod exchange;
pub mod explain;
pub mod finding;
pub mod frames;
mod http2;
mod ignored;
pub mod judge;
mod network;
pub mod options;
mod printable;
mod probe;
pub mod report;
pub mod request;
pub mod response;
mod route;
mod secrets;
mod target;
pub mod text;
mod tls;
#[doc = include_str!("../docs/findings.md")]
pub mod findings {}
mod who;

use std::{io::Write as _, process::ExitCode};

use clap::{CommandFactory, Parser, error::ErrorKind};

use self::{
    doctor::Doctor,
    options::{Generate, Options},
    printable::printable,
    secrets::Secrets,
};

/// The exit code of a wrong command line (`EX_USAGE` of BSD).
const USAGE: u8 = 64;

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => return usage(&error),
    };
    if let Some(what) = options.generate {
        return generate(what);
    }
    if let Some(text) = &options.explain {
        return explained(&text.join(" "), options.json);
    }
    let doctor = match Doctor::new(&options) {
        Ok(doctor) => doctor,
        Err(error) => return wrong(&error, options.json),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return wrong(&format!("the program cannot start: {error}"), options.json),
    };
    let report = runtime.block_on(doctor.run());
    let text = if options.json {
        report.to_json() + "\n"
    } else {
        text::text(&report, options.verbose > 0)
    };
    print(&text);
    // Waiting would wait for a pending lookup of a name, too.
    runtime.shutdown_background();
    ExitCode::from(report.exit)
}

/// Without styles if the output is not a terminal, or `NO_COLOR` is set. A closed pipe is no error.
fn print(text: &str) {
    let mut output = anstream::stdout().lock();
    let _ = output.write_all(text.as_bytes());
    let _ = output.flush();
}

fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    // clap shows values, and so may show a password.
    let mut secrets = Secrets::new(false);
    let arguments = std::env::args().collect::<Vec<_>>();
    for pair in arguments.windows(2) {
        if ["--token", "-u", "--user", "-b", "--cookie", "-H", "--header", "-U", "--proxy-user"]
            .contains(&&*pair[0])
        {
            secrets.add(&pair[1]);
        }
    }
    for argument in &arguments {
        let joined = ["--token=", "--user=", "--cookie=", "--header=", "--proxy-user="];
        joined
            .iter()
            .filter_map(|prefix| argument.strip_prefix(prefix))
            .for_each(|secret| secrets.add(secret));
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim();
    wrong(&secrets.mask(text), arguments.iter().any(|argument| argument == "--json"))
}

/// A wrong command line.
fn wrong(error: &str, json: bool) -> ExitCode {
    if json {
        let object = serde_json::json!({
            "accepted": false,
            "verdict": "usage",
            "exit": USAGE,
            "error": error,
            "findings": [],
            "probes": [],
        });
        print(&(report::ascii(&format!("{object:#}")) + "\n"));
    } else {
        anstream::eprintln!(
            "ws-doctor: {}\n\nws-doctor --help lists the options.",
            printable(error)
        );
    }
    ExitCode::from(USAGE)
}

fn explained(text: &str, json: bool) -> ExitCode {
    let rows = explain::explain(text);
    if json {
        let rows = rows.iter().map(|row| {
            serde_json::json!({ "symptom": row.symptom, "means": row.means, "fix": row.todo })
        });
        let object = serde_json::json!({ "explanations": rows.collect::<Vec<_>>() });
        print(&(report::ascii(&format!("{object:#}")) + "\n"));
    } else if rows.is_empty() {
        print("Nothing is known of this. Make the handshake: ws-doctor URL --origin ORIGIN\n");
    }
    let is_known = !rows.is_empty();
    if !json {
        for row in rows {
            let bold = anstyle::Style::new().bold();
            let row = [row.symptom, row.means, row.todo].map(|cell| printable(&cell));
            print(&format!("{bold}{}{bold:#}\n  {}\n  What to do: {}\n\n", row[0], row[1], row[2]));
        }
    }
    if is_known { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn generate(what: Generate) -> ExitCode {
    use clap_complete::Shell;

    let mut command = Options::command();
    let mut output = Vec::new();
    let shell = match what {
        Generate::Man => {
            // Writing to memory does not fail.
            let _ = clap_mangen::Man::new(command).render(&mut output);
            let _ = std::io::stdout().write_all(&output);
            return ExitCode::SUCCESS;
        }
        Generate::Findings => {
            print(&codes::page());
            return ExitCode::SUCCESS;
        }
        Generate::Bash => Shell::Bash,
        Generate::Zsh => Shell::Zsh,
        Generate::Fish => Shell::Fish,
        Generate::Powershell => Shell::PowerShell,
        Generate::Elvish => Shell::Elvish,
    };
    clap_complete::generate(shell, &mut command, "ws-doctor", &mut output);
    let _ = std::io::stdout().write_all(&output);
    ExitCode::SUCCESS
}
