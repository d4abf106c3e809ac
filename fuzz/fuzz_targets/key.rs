//! See the property.
#![no_main]

use differential::properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    properties::key(input);
});
