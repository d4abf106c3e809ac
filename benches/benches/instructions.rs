//! Instructions, as callgrind counts them.

use benches::{Case, Operation, cases};
use gungraun::{
    Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};

fn prepared(case: Case) -> Box<dyn Operation> {
    let mut operation = case.operation();
    operation.prepare(benches::INSTRUCTION_RUNS);
    operation
}

#[library_benchmark]
#[benches::case(iter = cases(), setup = prepared)]
fn instructions(mut operation: Box<dyn Operation>) -> Box<dyn Operation> {
    operation.run();
    operation
}

library_benchmark_group!(name = all, benchmarks = instructions);

main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"])),
    library_benchmark_groups = all
);
