//! Measures cases from outside: each in processes of its own, which run the program `case`.

use std::{
    env, fs, io,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use nix::{
    sys::{
        ptrace,
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{Case, Result};

/// The processes whose median counts: a hash with a random key may collide in one process and not
/// in another.
const PROCESSES: usize = 5;

/// The maximum of native instructions, because each step takes microseconds.
const LIMIT: u64 = 100_000;

/// The runs of an operation under callgrind.
pub const CALLGRIND_RUNS: usize = 20;

/// The function whose instructions callgrind counts.
const MEASURED: &str = "*case*measured*";

/// glibc chooses its copying functions by the processor. Without these there is one choice.
const ONE_PROCESSOR: &str = "glibc.cpu.hwcaps=-AVX2,-AVX,-BMI2,-ERMS,-FSRM,-MOVBE,-LZCNT,\
    -AVX_Fast_Unaligned_Load,-Fast_Unaligned_Copy,-SSSE3,-SSE4_1,-SSE4_2";

/// The program `case`, by the features of the crate. All figures are those of one program, so that
/// none depends on what else is compiled into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    Plain,
    /// With the features `tracing` and `metrics` of the crate.
    Observed,
}

/// Of one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allocations {
    pub count: u64,
    pub bytes: u64,
}

impl Program {
    pub fn build(self) -> Result<()> {
        let features: &[&str] = match self {
            Self::Plain => &[],
            Self::Observed => &["--features", "observed"],
        };
        let programs = ["--bin", "case", "--bin", "allocations"];
        cargo(
            &[&["build", "--release", "--package", "benches"], &programs[..], features].concat(),
        )?;
        for program in ["case", "allocations"] {
            // The next build replaces it.
            fs::copy(directory()?.join(program), self.path(program)?)?;
        }
        Ok(())
    }

    fn path(self, program: &str) -> Result<PathBuf> {
        Ok(directory()?.join(format!("{program}-{self:?}")))
    }

    pub fn allocations(self, case: &Case) -> Result<Allocations> {
        let mut command = Command::new(self.path("allocations")?);
        let output = command.args([case.group, case.name]).stderr(Stdio::inherit()).output()?;
        let text = String::from_utf8(output.stdout)?;
        let (count, bytes) = text.trim().split_once(' ').ok_or_else(|| case.id())?;
        Ok(Allocations { count: count.parse()?, bytes: bytes.parse()? })
    }

    /// Native instructions: the kernel stops the process after every one. `None` if there are too
    /// many.
    pub fn instructions(self, case: &Case) -> Result<Option<u64>> {
        let mut counts = [None; PROCESSES];
        for count in &mut counts {
            let mut command = Command::new(self.path("case")?);
            *count = steps_of(command.args(["step", case.group, case.name]).spawn()?)?;
        }
        counts.sort_unstable();
        Ok(counts[PROCESSES / 2])
    }

    /// Instructions of the processor that callgrind imitates, which has no SHA extensions.
    pub fn callgrind(self, case: &Case) -> Result<u64> {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
            .arg(format!("--toggle-collect={MEASURED}"))
            .arg(self.path("case")?)
            .args(["callgrind", case.group, case.name])
            .env("GLIBC_TUNABLES", ONE_PROCESSOR)
            .output()
            .map_err(|error| format!("install valgrind: {error}"))?;
        let text = String::from_utf8_lossy(&output.stderr);
        let collected = text.lines().find_map(|line| line.split_once("Collected : "));
        match collected {
            Some((_, count)) if output.status.success() => {
                Ok(count.trim().parse::<u64>()? / CALLGRIND_RUNS as u64)
            }
            _ => Err(format!("{}: {text}", case.id()).into()),
        }
    }
}

/// On all processors: the counts do not depend on what else runs.
pub fn each<T: Send>(
    cases: &[Case],
    measure: impl Fn(&Case) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((index, case)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, cases.get(i)?)))
        {
            let result = measure(case).map_err(|error| error.to_string());
            results.lock().expect("no panic").push((index, result));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut results = results.into_inner().expect("no panic");
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| Ok(result?)).collect()
}

/// The programs of this build.
pub fn directory() -> Result<PathBuf> {
    Ok(env::current_exe()?.parent().ok_or("no directory")?.to_owned())
}

pub fn cargo(arguments: &[&str]) -> Result<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["--quiet", "--locked"])
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(format!("cargo {}: {}", arguments.join(" "), output.status).into()),
    }
}

/// The tracee stops around nothing, and then around the operation.
fn steps_of(mut tracee: Child) -> io::Result<Option<u64>> {
    let pid = Pid::from_raw(tracee.id().cast_signed());
    let (Some(nothing), Some(operation)) = (steps(pid)?, steps(pid)?) else {
        tracee.kill()?;
        tracee.wait()?;
        return Ok(None);
    };
    assert!(tracee.wait()?.success());
    Ok(Some(operation - nothing))
}

/// Counts the steps from the next stop to the one after it.
fn steps(pid: Pid) -> nix::Result<Option<u64>> {
    assert_eq!(waitpid(pid, None)?, WaitStatus::Stopped(pid, Signal::SIGSTOP));
    for steps in 0..LIMIT {
        ptrace::step(pid, None)?;
        match waitpid(pid, None)? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            status => {
                assert_eq!(status, WaitStatus::Stopped(pid, Signal::SIGSTOP));
                ptrace::cont(pid, None)?;
                return Ok(Some(steps));
            }
        }
    }
    Ok(None)
}
