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
fn two_slots_are_free_when_their_last_permits_are_dropped() {
    explore([false, true], || {
        let limit = ConnectionLimit::total(2).unwrap();
        let layer = guard().limit(limit.clone());
        let (first, second) = (enter(&layer).unwrap(), enter(&layer).unwrap());
        let clone = first.clone();
        let closing = start(move || drop((clone, second)));
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
        let again = [(); 3].map(|()| enter(&layer));
        assert_eq!(again.each_ref().map(Result::is_ok), [true, true, false]);
        accepted
    });
}
