//! Wall time, by criterion.

use std::time::{Duration, Instant};

use benches::cases;
use criterion::{Criterion, criterion_group, criterion_main};

/// Few enough for the prepared inputs to stay in the cache.
const BATCH: u64 = 16;

fn time(criterion: &mut Criterion) {
    for case in cases() {
        let mut operation = case.operation();
        criterion.benchmark_group(case.group).bench_function(case.name, |bencher| {
            bencher.iter_custom(|count| {
                let mut elapsed = Duration::ZERO;
                let mut left = count;
                while left > 0 {
                    let batch = left.min(BATCH);
                    operation.prepare(batch as usize);
                    let start = Instant::now();
                    operation.run();
                    elapsed += start.elapsed();
                    left -= batch;
                }
                elapsed
            });
        });
    }
}

criterion_group! {
    name = all;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = time
}
criterion_main!(all);
