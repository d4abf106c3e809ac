use models::ConnectionLimit;

use crate::common::{enter, explore, guard, start};

/// `handshakes` at once, under a limit of `max`: so many are accepted.
fn at_once(handshakes: usize, max: usize) -> usize {
    let limit = ConnectionLimit::total(max).unwrap();
    let layer = guard().limit(limit.clone());
    let others = (1..handshakes).map(|_| {
        let layer = layer.clone();
        start(move || enter(&layer))
    });
    let others = others.collect::<Vec<_>>();
    let mut results = vec![enter(&layer)];
    results.extend(others.into_iter().map(|other| other.join().unwrap()));
    let permits = results.into_iter().filter_map(|result| match result {
        Ok(permit) => Some(permit),
        Err(code) => {
            assert_eq!(code, "over-capacity");
            None
        }
    });
    let permits = permits.collect::<Vec<_>>();
    let accepted = permits.len();
    assert_eq!(limit.connections(), accepted);
    drop(permits);
    assert_eq!(limit.connections(), 0);
    accepted
}

#[test]
fn two_handshakes_get_one_slot() {
    explore([1], || at_once(2, 1));
}

#[test]
fn three_handshakes_get_two_slots() {
    explore([2], || at_once(3, 2));
}

#[test]
fn a_slot_is_free_once_when_the_last_clone_of_its_permit_is_dropped() {
    explore([false, true], || {
        let limit = ConnectionLimit::total(1).unwrap();
        let layer = guard().limit(limit.clone());
        let first = enter(&layer).unwrap();
        let clone = first.clone();
        let closing = start(move || drop(clone));
        let newcomer = start({
            let layer = layer.clone();
            move || enter(&layer)
        });
        drop(first);
        closing.join().unwrap();
        let newcomer = newcomer.join().unwrap();
        assert_eq!(limit.connections(), usize::from(newcomer.is_ok()));
        let accepted = newcomer.is_ok();
        drop(newcomer);
        assert_eq!(limit.connections(), 0);
        let again = enter(&layer);
        assert!(again.is_ok() && enter(&layer).is_err());
        accepted
    });
}
