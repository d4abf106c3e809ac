//! What the guard costs to build: crates, the size of a binary, and the time of compiling. Prints
//! the section "Build" of BENCHMARKS.md.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use benches::{
    Result,
    measure::{cargo, directory},
};

/// Of a package with these features: the names and versions of all crates that are compiled for
/// it, itself included.
fn crates(package: &str, features: &[&str]) -> Result<BTreeSet<String>> {
    let arguments = ["tree", "--package", package, "--edges=normal,build", "--prefix=none"];
    let tree = cargo(&[&arguments, features].concat())?;
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    Ok(tree.lines().filter(|line| !line.is_empty()).map(name).collect())
}

type Times = Vec<(String, Duration)>;

/// One crate after the other, from nothing. The time of each, and the size of the stripped program
/// if there is one.
fn build(package: &str, features: &[&str]) -> Result<(Times, Option<u64>)> {
    let target = directory()?.join("footprint-build");
    fs::remove_dir_all(&target).ok();
    let arguments =
        ["build", "--release", "--locked", "--quiet", "--jobs=1", "--message-format=json"];
    let mut child = Command::new(env!("CARGO"))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(arguments)
        .args(["--package", package])
        .args(features)
        .args(["--config", "profile.release.strip='symbols'"])
        .arg("--target-dir")
        .arg(&target)
        .stdout(Stdio::piped())
        .spawn()?;
    let (mut times, mut program) = (Vec::new(), None);
    let mut last = Instant::now();
    for line in BufReader::new(child.stdout.take().ok_or("no output")?).lines() {
        let message: serde_json::Value = serde_json::from_str(&line?)?;
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        let name = message["target"]["name"].as_str().ok_or("no name")?;
        times.push((name.to_owned(), last.elapsed()));
        last = Instant::now();
        if let Some(path) = message["executable"].as_str() {
            program = Some(fs::metadata(path)?.len());
        }
    }
    match child.wait()?.success() {
        true => Ok((times, program)),
        false => Err(format!("cargo build of {package}").into()),
    }
}

fn seconds(times: &[(String, Duration)]) -> f64 {
    times.iter().map(|(_, time)| time.as_secs_f64()).sum()
}

fn main() -> Result<()> {
    const GUARD: &str = "tower-ws-guard";
    println!(
        "### The guard alone\n\n| features | crates | compiled one after the other, s | of these the guard, s |\n|---|--:|--:|--:|"
    );
    for (name, features) in [("none", &["--no-default-features"][..]), ("default", &[])] {
        let count = crates(GUARD, features)?.len();
        let (times, _) = build(GUARD, features)?;
        let own = times.iter().filter(|(name, _)| name == "tower_ws_guard").cloned();
        let own = seconds(&own.collect::<Vec<_>>());
        println!("| {name} | {count} | {:.1} | {own:.1} |", seconds(&times));
    }

    let with = ["--features", "guard"];
    let (before, after) = (crates("footprint", &[])?, crates("footprint", &with)?);
    let ((times_before, size_before), (times_after, size_after)) =
        (build("footprint", &[])?, build("footprint", &with)?);
    let (size_before, size_after) =
        (size_before.ok_or("no program")?, size_after.ok_or("no program")?);
    println!(
        "\n### A small axum application\n\n| | crates | stripped binary, bytes | compiled one after the other, s |\n|---|--:|--:|--:|"
    );
    println!(
        "| without the guard | {} | {size_before} | {:.1} |",
        before.len(),
        seconds(&times_before)
    );
    println!("| with it | {} | {size_after} | {:.1} |", after.len(), seconds(&times_after));
    println!(
        "| the guard adds | {} | {} | {:.1} |",
        after.len() - before.len(),
        size_after - size_before,
        seconds(&times_after) - seconds(&times_before)
    );
    let added = after.difference(&before).filter_map(|name| name.split(' ').next());
    println!("\nAdded, with the seconds of each:");
    for name in added {
        let same = |(it, _): &&(String, Duration)| *it == name.replace('-', "_");
        let time = times_after.iter().find(same).map_or(0.0, |(_, time)| time.as_secs_f64());
        println!("- {name} {time:.1}");
    }
    Ok(())
}
