//! Compares what this crate costs with `figures.tsv`, and fails if a row got worse. `--renew` writes
//! the file instead.
//!
//! Instructions are those of callgrind, which imitates one processor, so the processor does not
//! matter. The compiler and the libc do.

use std::{collections::BTreeMap, env, fs, process::Command};

use benches::{
    Case, Result, cases,
    measure::{Program, each},
    observed_cases,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/figures.tsv");

const RENEW: &str = "cargo run --release -p benches --bin check -- --renew";

/// In percent.
const TOLERANCE: u64 = 5;

/// The instructions and allocations of each row.
type Figures = BTreeMap<String, (u64, u64)>;

fn main() -> Result<()> {
    let mut figures = Figures::new();
    let plain = cases().into_iter().filter(Case::is_ours).collect::<Vec<_>>();
    for (program, cases) in [(Program::Plain, plain), (Program::Observed, observed_cases())] {
        program.build()?;
        let costs =
            each(&cases, |case| Ok((program.callgrind(case)?, program.allocations(case)?.count)))?;
        let rows = cases.iter().map(|case| format!("{program:?}\t{}\t{}", case.group, case.name));
        figures.extend(rows.zip(costs));
    }
    if env::args().any(|argument| argument == "--renew") {
        return write(&figures);
    }
    let (made_with, committed) = read()?;
    let mut failed = false;
    for row in committed.keys().chain(figures.keys()) {
        if committed.contains_key(row) != figures.contains_key(row) {
            println!("only in one of the file and the cases: {row}");
            failed = true;
        }
    }
    for (row, now) in &figures {
        let Some(then) = committed.get(row) else { continue };
        if now.0 * 100 > then.0 * (100 + TOLERANCE) || now.1 > then.1 {
            println!(
                "{row}: {} instructions and {} allocations, were {} and {}",
                now.0, now.1, then.0, then.1
            );
            failed = true;
        } else if now.0 * 100 < then.0 * (100 - TOLERANCE) || now.1 < then.1 {
            println!("{row}: got better, so it could get worse unnoticed: `{RENEW}`");
        }
    }
    if !failed {
        return Ok(());
    }
    Err(format!(
        "The figures were made with {made_with}; this is {}. If the difference is meant: `{RENEW}`",
        tools()?
    )
    .into())
}

fn read() -> Result<(String, Figures)> {
    let text = fs::read_to_string(FILE)
        .map_err(|error| format!("{FILE}: {error}; make it with `{RENEW}`"))?;
    let (made_with, rows) = text.split_once('\n').ok_or("an empty file")?;
    let row = |line: &str| {
        let (line, allocations) = line.rsplit_once('\t')?;
        let (row, instructions) = line.rsplit_once('\t')?;
        Some((row.to_owned(), (instructions.parse().ok()?, allocations.parse().ok()?)))
    };
    let figures = rows.lines().skip(1).map(row).collect::<Option<_>>();
    Ok((made_with.to_owned(), figures.ok_or("a row without figures")?))
}

fn write(figures: &Figures) -> Result<()> {
    let mut text = format!("{}\nfeatures\tgroup\tcase\tinstructions\tallocations\n", tools()?);
    for (row, (instructions, allocations)) in figures {
        text += &format!("{row}\t{instructions}\t{allocations}\n");
    }
    Ok(fs::write(FILE, text)?)
}

fn tools() -> Result<String> {
    let version = |program: &str| -> Result<String> {
        let output = Command::new(program).arg("--version").output()?;
        Ok(String::from_utf8(output.stdout)?.lines().next().unwrap_or_default().to_owned())
    };
    Ok(format!("{}, {}, {}", version("rustc")?, version("valgrind")?, version("ldd")?))
}
