//! What a server may send to `ws-doctor`: the head, the body and the frames of a response.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use ws_doctor::{
    body,
    frames::Frames,
    response::{Progress, read_head},
};

fuzz_target!(|bytes: &[u8]| {
    let (head, length) = match read_head(bytes) {
        Progress::Complete(head, length) => (head, length),
        Progress::Partial | Progress::TooLong => return,
    };
    assert_eq!(head.raw, &bytes[..length]);
    // What comes later does not change a head that is complete, and nothing before its end completes it.
    assert!(matches!(read_head(&bytes[..length]), Progress::Complete(again, _) if again == head));
    assert_eq!(read_head(&bytes[..length - 1]), Progress::Partial);
    assert!(head.to_response().headers().len() <= head.headers.len());

    let rest = &bytes[length..];
    let framed = body::unframe(&head, rest);
    assert!(framed.bytes.len() <= rest.len());
    let decoded = body::decode(&head, &framed.bytes);
    assert!(decoded.len() <= body::MAX_BODY.max(framed.bytes.len()));
    body::text(&head, &decoded);

    for deflate in [false, true] {
        let mut whole = Frames::new(deflate);
        whole.feed(rest, Duration::ZERO);
        whole.finish(Duration::ZERO);
        let mut parts = Frames::new(deflate);
        rest.chunks(3).for_each(|part| parts.feed(part, Duration::ZERO));
        parts.finish(Duration::ZERO);
        assert_eq!((whole.events, whole.fault), (parts.events, parts.fault));
    }
});
