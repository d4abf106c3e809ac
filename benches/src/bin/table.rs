//! Measures all cases and prints the tables of BENCHMARKS.md. `--no-time` omits the time, which
//! takes longest.

use std::env;

use benches::{
    Case, Result, cases,
    measure::{Allocations, Program, cargo, each},
    observed_cases,
};

fn main() -> Result<()> {
    let time = match env::args().any(|argument| argument == "--no-time") {
        true => vec![None; cases().len()],
        false => time()?,
    };
    println!("## Operations\n");
    table(Program::Plain, &cases(), &time)?;
    println!("\n## The same with the features `tracing` and `metrics`\n");
    let observed = observed_cases();
    table(Program::Observed, &observed, &vec![None; observed.len()])
}

fn table(program: Program, cases: &[Case], time: &[Option<u64>]) -> Result<()> {
    program.build()?;
    let figures = each(cases, |case| {
        Ok((program.instructions(case)?, program.callgrind(case)?, program.allocations(case)?))
    })?;
    assert_eq!(time.len(), cases.len(), "one figure for each case");

    println!(
        "Instructions are native (single-stepped) and those of callgrind, without the kernel's; ns is the median of criterion."
    );
    let mut group = "";
    for ((case, (native, callgrind, allocations)), time) in cases.iter().zip(figures).zip(time) {
        if case.group != group {
            group = case.group;
            println!(
                "\n### {group}\n\n| case | instructions | by callgrind | allocations | bytes | ns |\n|---|--:|--:|--:|--:|--:|"
            );
        }
        let [native, time] =
            [native, *time].map(|figure| figure.map_or("-".into(), |figure| figure.to_string()));
        let Allocations { count, bytes } = allocations;
        println!("| {} | {native} | {callgrind} | {count} | {bytes} | {time} |", case.name);
    }
    Ok(())
}

/// The medians in nanoseconds.
fn time() -> Result<Vec<Option<u64>>> {
    let output = cargo(&[
        "bench",
        "--package",
        "benches",
        "--bench",
        "time",
        "--",
        "--output-format=bencher",
    ])?;
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
