//! Native instructions of each case: the kernel stops the process after every instruction.
//! callgrind cannot run the SHA extensions of a processor, so it counts others.

use std::{
    env, io,
    process::{Child, Command},
};

use benches::cases;
use nix::{
    sys::{
        ptrace,
        signal::{Signal, raise},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// A hash with a random key may collide in one process and not in another.
const PROCESSES: usize = 3;

/// The maximum, because each step takes microseconds. Beyond it the result is `None`.
const LIMIT: u64 = 100_000;

fn main() -> io::Result<()> {
    if let Some(index) = env::args().nth(1) {
        return Ok(tracee(index.parse().expect("the number of a case"))?);
    }
    for index in 0..cases().len() {
        let mut counts = [None; PROCESSES];
        for count in &mut counts {
            *count = trace(Command::new(env::current_exe()?).arg(index.to_string()).spawn()?)?;
        }
        counts.sort_unstable();
        println!("{}", counts[PROCESSES / 2].map_or("-".into(), |count| count.to_string()));
    }
    Ok(())
}

/// Stops around nothing, and then around the operation.
fn tracee(index: usize) -> nix::Result<()> {
    let mut operation = cases()[index].operation();
    ptrace::traceme()?;
    for inputs in 0..=1 {
        operation.prepare(inputs);
        raise(Signal::SIGSTOP)?;
        operation.run();
        raise(Signal::SIGSTOP)?;
    }
    Ok(())
}

fn trace(mut child: Child) -> io::Result<Option<u64>> {
    let pid = Pid::from_raw(child.id().cast_signed());
    let (Some(nothing), Some(operation)) = (steps(pid)?, steps(pid)?) else {
        child.kill()?;
        child.wait()?;
        return Ok(None);
    };
    assert!(child.wait()?.success());
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
