//! The cases, each defined once for time, instructions and allocations.

mod accept_key;
mod app;
mod connection;
pub mod floor;
mod growth;
pub mod handshake;
mod input;
pub mod measure;
mod observed;
pub mod ordinary;
pub mod rejection;
pub mod server;
mod service;

use std::{error::Error, hint::black_box};

pub use input::{FOREIGN_ORIGIN, HANDSHAKE, ORIGIN, with};
pub use measure::CALLGRIND_RUNS;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One row of a table.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub group: &'static str,
    pub name: &'static str,
    make: fn() -> Box<dyn Operation>,
}

/// All rows, by group.
pub fn cases() -> Vec<Case> {
    [
        accept_key::CASES,
        ordinary::CASES,
        rejection::CASES,
        handshake::CASES,
        connection::CASES,
        growth::CASES,
    ]
    .concat()
}

/// The rows with the features `tracing` and `metrics` of this crate, without those of growth, which
/// is the same. They need the feature `observed`.
pub fn observed_cases() -> Vec<Case> {
    let grows = |case: &Case| growth::CASES.iter().any(|other| other.id() == case.id());
    let ours = cases().into_iter().filter(|case| case.is_ours() && !grows(case));
    ours.chain(observed::CASES.iter().copied()).collect()
}

/// The case of this group and name. It panics if there is none.
pub fn case_named(group: &str, name: &str) -> Case {
    let mut cases = cases().into_iter().chain(observed_cases());
    let case = cases.find(|case| (case.group, case.name) == (group, name));
    case.unwrap_or_else(|| panic!("no case {group}: {name}"))
}

const fn case(group: &'static str, name: &'static str, make: fn() -> Box<dyn Operation>) -> Case {
    Case { group, name, make }
}

impl Case {
    /// Whether it runs this crate, and not only peers.
    pub fn is_ours(&self) -> bool {
        self.group.contains("`GuardLayer`") || self.name.contains("`GuardLayer`")
    }

    /// Unique.
    pub fn id(&self) -> String {
        format!("{}: {}", self.group, self.name)
    }

    /// Warm, after everything that is made once.
    pub fn operation(&self) -> Box<dyn Operation> {
        let mut operation = (self.make)();
        operation.prepare(4);
        operation.run();
        operation
    }
}

/// An operation with prepared inputs, so that only the operation is measured, and the drop of its
/// input and output.
pub trait Operation {
    fn prepare(&mut self, count: usize);

    /// Runs the operation once for each prepared input.
    fn run(&mut self);
}

struct Prepared<S, F, I> {
    setup: S,
    run: F,
    inputs: Vec<I>,
}

impl<I, O, S: FnMut() -> I, F: FnMut(I) -> O> Operation for Prepared<S, F, I> {
    fn prepare(&mut self, count: usize) {
        self.inputs.clear();
        self.inputs.extend(std::iter::repeat_with(&mut self.setup).take(count));
    }

    fn run(&mut self) {
        for input in self.inputs.drain(..) {
            black_box((self.run)(input));
        }
    }
}

fn operation<I: 'static, O>(
    setup: impl FnMut() -> I + 'static,
    run: impl FnMut(I) -> O + 'static,
) -> Box<dyn Operation> {
    Box::new(Prepared { setup, run, inputs: Vec::new() })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn every_case_answers_as_it_should_and_has_a_name_of_its_own() {
        let cases = match cfg!(feature = "observed") {
            true => super::observed_cases(),
            false => super::cases(),
        };
        let mut names = HashSet::new();
        for case in cases {
            assert!(names.insert((case.group, case.name)), "{case:?}");
            case.operation();
        }
    }
}
