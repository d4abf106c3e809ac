#![doc = include_str!("../docs/threats.md")]
