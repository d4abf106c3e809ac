//! Tests the WebSocket handshake of a server.

use std::{
    error::Error,
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anstream::{eprintln, println};
use anstyle::{AnsiColor, Style};
use clap::Parser;
use ws_handshake_suite::{CaseReport, Report, Target, Verdict, cases, html, markdown, run};

/// Tests the WebSocket handshake of a server against RFC 6455, RFC 8441 and RFC 7692.
///
/// Exits with 0 if no MUST fails, 1 otherwise, and 2 if the server could not be tested.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Such as ws://127.0.0.1:3000/ws
    #[arg(required_unless_present_any = ["list", "merge"], value_parser = |url: &str| Target::new(url))]
    url: Option<Target>,
    /// What the server is called in reports. Default: its URL.
    #[arg(long)]
    name: Option<String>,
    /// Send this Origin with every handshake.
    #[arg(long, value_parser = header_value)]
    origin: Option<String>,
    /// The server rejects this origin.
    #[arg(long, value_name = "ORIGIN", value_parser = header_value)]
    hostile_origin: Option<String>,
    /// The server rejects handshakes without Origin.
    #[arg(long, requires = "origin")]
    require_origin: bool,
    /// Send this bearer token with every handshake; the server rejects handshakes without it.
    #[arg(long, value_parser = header_value)]
    token: Option<String>,
    /// The server supports this subprotocol.
    #[arg(long, value_name = "NAME", value_parser = header_value)]
    subprotocol: Option<String>,
    /// Send this header field with every handshake.
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// How long to wait for a response.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    timeout: Duration,
    /// Accept any certificate.
    #[arg(short = 'k', long)]
    insecure: bool,
    /// Run only this case, or those whose names begin with it and a dot. Can be repeated.
    #[arg(long, value_name = "ID")]
    only: Vec<String>,
    /// List the cases.
    #[arg(long)]
    list: bool,
    /// Write JSON to the standard output, in place of text.
    #[arg(long)]
    json: bool,
    /// Write a report for JUnit.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write a report as one page of HTML.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write a table in Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Test nothing, and put these JSON reports together.
    #[arg(long, value_name = "JSON", num_args = 1.., conflicts_with_all = ["url", "junit", "json"])]
    merge: Vec<PathBuf>,
}

fn header_value(value: &str) -> Result<String, &'static str> {
    let visible = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    if !value.is_empty() && value.bytes().all(visible) {
        Ok(value.to_owned())
    } else {
        Err("use visible ASCII characters")
    }
}

fn header(line: &str) -> Result<(String, String), &'static str> {
    let (name, value) = line.split_once(':').ok_or("use NAME: VALUE")?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err("the name is not one of a header field");
    }
    Ok((name.to_owned(), header_value(value.trim())?))
}

fn seconds(seconds: &str) -> Result<Duration, &'static str> {
    let seconds = seconds.parse().map_err(|_| "use a number")?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(seconds) if !seconds.is_zero() && seconds <= Duration::from_secs(600) => Ok(seconds),
        _ => Err("use more than 0 and at most 600"),
    }
}

fn main() -> ExitCode {
    match test(Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether no MUST failed.
fn test(options: Options) -> Result<bool, Box<dyn Error>> {
    if options.list {
        for case in cases() {
            println!("{:28} {:6} {}: {}", case.id, case.level.to_string(), case.rfc, case.says);
        }
        return Ok(true);
    }
    let reports = match options.url {
        None => options.merge.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?,
        Some(mut target) => {
            target.name = options.name.unwrap_or(target.name);
            target.origin = options.origin;
            target.hostile_origin = options.hostile_origin;
            target.require_origin = options.require_origin;
            target.token = options.token;
            target.subprotocol = options.subprotocol;
            target.headers = options.header;
            target.insecure = options.insecure;
            target.timeout = options.timeout;
            let wanted = |id: &str| {
                options.only.is_empty()
                    || options.only.iter().any(|only| {
                        id.strip_prefix(&**only)
                            .is_some_and(|rest| matches!(rest.as_bytes(), [] | [b'.', ..]))
                    })
            };
            if !cases().iter().any(|case| wanted(&case.id)) {
                return Err("no case has the name of --only; see --list".into());
            }
            let show = |case: &CaseReport| {
                if !options.json {
                    print(case);
                }
            };
            let report = run(&target, |case| wanted(&case.id), show)?;
            if options.json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            } else {
                print_summary(&report);
            }
            vec![report]
        }
    };
    if let Some(path) = &options.junit {
        let file = File::create(path).map_err(|error| at(path, error))?;
        reports[0].write_junit(BufWriter::new(file)).map_err(|error| at(path, error))?;
    }
    if let Some(path) = &options.report {
        fs::write(path, html(&reports)).map_err(|error| at(path, error))?;
    }
    if let Some(path) = &options.markdown {
        fs::write(path, markdown(&reports)).map_err(|error| at(path, error))?;
    }
    Ok(!options.merge.is_empty() || reports.iter().all(Report::conforms))
}

fn read(path: &Path) -> Result<Report, String> {
    let text = fs::read_to_string(path).map_err(|error| at(path, error))?;
    serde_json::from_str(&text).map_err(|error| at(path, error))
}

#[expect(clippy::needless_pass_by_value, reason = "it is for `map_err`")]
fn at(path: &Path, error: impl ToString) -> String {
    format!("{}: {}", path.display(), error.to_string())
}

fn print(case: &CaseReport) {
    let style = match case.verdict {
        Verdict::Pass => AnsiColor::Green.on_default(),
        Verdict::Lenient => AnsiColor::Yellow.on_default(),
        Verdict::Fail => AnsiColor::Red.on_default().bold(),
        Verdict::NotApplicable => Style::new().dimmed(),
    };
    let CaseReport { id, level, rfc, says, detail, .. } = case;
    let level = level.to_string();
    println!("{style}{:14}{style:#} {level:6} {id:28} {detail}", case.verdict.name());
    if case.verdict == Verdict::Fail {
        println!("{:14} {:6} {rfc}: {says}", "", "");
        for line in case.request.lines() {
            println!("{:21} > {line}", "");
        }
        for line in case.response.lines() {
            println!("{:21} < {line}", "");
        }
    }
}

fn print_summary(report: &Report) {
    println!();
    let summary = report.summary;
    for (level, count) in [("MUST", summary.must), ("SHOULD", summary.should), ("MAY", summary.may)]
    {
        println!(
            "{level:6} {:4} pass {:4} lenient {:4} fail {:4} not applicable",
            count.pass, count.lenient, count.fail, count.not_applicable
        );
    }
}
