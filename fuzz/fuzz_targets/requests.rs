//! The bytes of a connection through hyper and the guard, against the oracle. The first byte
//! selects the policy and the sizes of the pieces.
#![no_main]

use std::{cell::LazyCell, sync::Arc};

use differential::{
    connection::{Calls, compare, guarded, recorded, responder, serve},
    policies::POLICIES,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    thread_local! {
        static CALLS: Calls = Calls::default();
        static APPS: LazyCell<Vec<differential::connection::App>> = LazyCell::new(|| {
            let app = |policy| guarded(policy, recorded(responder(policy), CALLS.with(Arc::clone)));
            POLICIES.iter().map(app).collect()
        });
    }
    let Some((&first, input)) = input.split_first() else { return };
    let at = usize::from(first) % POLICIES.len();
    let piece = [usize::MAX, 1, 7, 100][usize::from(first) / POLICIES.len() % 4];
    let outcome =
        APPS.with(|apps| CALLS.with(|calls| serve(&apps[at], calls, input.to_vec(), piece)));
    if let Err(difference) = compare(input, &POLICIES[at], &outcome) {
        panic!("{difference}");
    }
});
