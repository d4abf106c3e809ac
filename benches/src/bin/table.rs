//! Measures all cases and prints the tables of BENCHMARKS.md. With `--no-time` it omits the
//! time, which takes longest.

use std::{
    env,
    error::Error,
    process::{Command, Stdio},
};

use benches::{Case, INSTRUCTION_RUNS, cases};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let cases = cases();
    let callgrind = callgrind()?;
    let native = native()?;
    let time = match env::args().any(|argument| argument == "--no-time") {
        true => vec![None; cases.len()],
        false => time()?,
    };
    for column in [callgrind.len(), native.len(), time.len()] {
        assert_eq!(column, cases.len(), "one figure for each case");
    }

    println!(
        "Instructions are native (single-stepped) and those of callgrind, without the kernel's; ns is the median of criterion."
    );
    let mut group = "";
    for (((case, callgrind), native), time) in cases.iter().zip(callgrind).zip(native).zip(time) {
        if case.group != group {
            group = case.group;
            println!(
                "\n### {group}\n\n| case | instructions | by callgrind | allocations | bytes | ns |\n|---|--:|--:|--:|--:|--:|"
            );
        }
        let (allocations, bytes) = allocations(case);
        let time = time.map_or("-".into(), |time| time.to_string());
        println!("| {} | {native} | {callgrind} | {allocations} | {bytes} | {time} |", case.name);
    }
    Ok(())
}

/// Of one operation, warm.
fn allocations(case: &Case) -> (u64, u64) {
    let mut operation = case.operation();
    operation.prepare(1);
    let info = allocation_counter::measure(|| operation.run());
    (info.count_total, info.bytes_total)
}

fn native() -> Result<Vec<String>> {
    Ok(cargo(&["run", "--release", "--bin", "step"])?.lines().map(str::to_owned).collect())
}

fn callgrind() -> Result<Vec<u64>> {
    let output = cargo(&["bench", "--bench", "instructions", "--", "--output-format=json"])?;
    let total = |line: &str| -> Result<u64> {
        let summary: serde_json::Value = serde_json::from_str(line)?;
        let total = &summary["profiles"][0]["data"]["total"]["metrics"]["Ir"]["values"]["new"];
        Ok(total.as_u64().ok_or("no count of instructions")? / INSTRUCTION_RUNS as u64)
    };
    output.lines().map(total).collect()
}

/// The medians in nanoseconds.
fn time() -> Result<Vec<Option<u64>>> {
    let output = cargo(&["bench", "--bench", "time", "--", "--output-format=bencher"])?;
    let time = |line: &str| -> Result<Option<u64>> {
        let (_, time) = line.split_once("bench:").ok_or("no time")?;
        Ok(Some(
            time.split("ns/iter")
                .next()
                .ok_or("no nanoseconds")?
                .trim()
                .replace(',', "")
                .parse()?,
        ))
    };
    output.lines().filter(|line| line.starts_with("test ")).map(time).collect()
}

fn cargo(arguments: &[&str]) -> Result<String> {
    let (command, options) = arguments.split_first().ok_or("no command")?;
    let features = cfg!(feature = "observed").then_some(["--features", "observed"]);
    let output = Command::new("cargo")
        .args([command, "--quiet", "--package", "benches"])
        .args(features.into_iter().flatten())
        .args(options)
        .stderr(Stdio::inherit())
        .output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(format!("cargo {}: {}", arguments.join(" "), output.status).into()),
    }
}
