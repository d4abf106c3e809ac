//! Counts the allocations of a case: `allocations GROUP NAME`. A program of its own, because the
//! counting costs instructions.

use benches::case_named;

fn main() {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let [group, name] = arguments.as_slice() else { panic!("group and name") };
    let mut operation = case_named(group, name).operation();
    operation.prepare(1);
    let info = allocation_counter::measure(|| operation.run());
    println!("{} {}", info.count_total, info.bytes_total);
}
