#![doc = include_str!("../docs/refusals.md")]
