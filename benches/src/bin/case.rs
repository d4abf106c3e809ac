//! Runs one case, to be measured from outside: `case step GROUP NAME` stops for its parent, and
//! `case callgrind GROUP NAME` runs in valgrind.

use benches::{CALLGRIND_RUNS, Operation, case_named};
use nix::sys::{
    ptrace,
    signal::{Signal, raise},
};

fn main() -> nix::Result<()> {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let [how, group, name] = arguments.as_slice() else { panic!("how, group and name") };
    let mut operation = case_named(group, name).operation();
    match how.as_str() {
        "step" => step(&mut *operation),
        "callgrind" => {
            operation.prepare(CALLGRIND_RUNS);
            measured(&mut *operation);
            Ok(())
        }
        _ => panic!("unknown: {how}"),
    }
}

/// callgrind counts from its call to its return.
#[inline(never)]
fn measured(operation: &mut dyn Operation) {
    operation.run();
}

/// Stops around nothing, and then around the operation.
fn step(operation: &mut dyn Operation) -> nix::Result<()> {
    ptrace::traceme()?;
    for inputs in 0..=1 {
        operation.prepare(inputs);
        raise(Signal::SIGSTOP)?;
        operation.run();
        raise(Signal::SIGSTOP)?;
    }
    Ok(())
}
