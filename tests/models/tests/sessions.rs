use std::task::Poll;

use loom::future::block_on;
use models::{
    Drain, Ended, GuardLayer, Permit, Revocations, Sessions, StaticTokens, TokenIdentity,
    TokenPolicy, VerifyToken, WhenFull, test_util::handshake,
};

use crate::common::{LONG, enter, enter_with, explore, explore_up_to, guard, now, poll, start};

const USER: &str = "alice";

/// At most `max` sessions of one user.
fn sessions(max: usize, when_full: WhenFull) -> (Sessions<&'static str>, GuardLayer) {
    let sessions = Sessions::per_key(max, |_| Some(USER)).unwrap().when_full(when_full);
    let layer = guard().sessions(&sessions);
    (sessions, layer)
}

/// What the registry says in its three ways.
#[track_caller]
fn assert_live(sessions: &Sessions<&'static str>, live: usize) {
    assert_eq!(now(sessions.list(&USER)).unwrap().len(), live, "listed");
    assert_eq!(sessions.connections(), live, "connections");
    assert_eq!(sessions.keys(), live.min(1), "keys");
}

fn has_ended(permit: &Permit) -> Option<Ended> {
    match poll(permit.ended()) {
        Poll::Ready(ended) => Some(ended),
        Poll::Pending => None,
    }
}

#[test]
fn two_handshakes_of_a_user_get_one_session() {
    explore([1], || {
        let (sessions, layer) = sessions(1, WhenFull::RejectNewest);
        let other = start({
            let layer = layer.clone();
            move || enter(&layer)
        });
        let results = [enter(&layer), other.join().unwrap()];
        let accepted = results.iter().filter(|result| result.is_ok()).count();
        assert_live(&sessions, accepted);
        drop(results);
        assert_live(&sessions, 0);
        accepted
    });
}

#[test]
fn the_last_session_of_a_user_ends_while_another_begins() {
    explore([()], || {
        let (sessions, layer) = sessions(2, WhenFull::RejectNewest);
        let first = enter(&layer).unwrap();
        let closing = start(move || drop(first));
        let second = enter(&layer).unwrap();
        closing.join().unwrap();
        assert_live(&sessions, 1);
        assert_eq!(now(sessions.end(&USER, Ended::Revoked)).unwrap(), 1);
        assert_eq!(has_ended(&second), Some(Ended::Revoked));
        assert_live(&sessions, 0);
        drop(second);
        assert_live(&sessions, 0);
    });
}

#[test]
fn the_last_two_sessions_of_a_user_end_at_once() {
    explore([()], || {
        let (sessions, layer) = sessions(2, WhenFull::RejectNewest);
        let closing =
            [(); 2].map(|()| enter(&layer).unwrap()).map(|permit| start(move || drop(permit)));
        closing.into_iter().for_each(|closing| closing.join().unwrap());
        assert_live(&sessions, 0);
    });
}

#[test]
fn one_of_two_sessions_is_evicted() {
    explore([[Some(Ended::Evicted.reason()), None], [None, Some(Ended::Evicted.reason())]], || {
        let (sessions, layer) = sessions(1, WhenFull::EvictOldest);
        let other = start({
            let layer = layer.clone();
            move || enter(&layer).unwrap()
        });
        let permits = [enter(&layer).unwrap(), other.join().unwrap()];
        let ended = permits.each_ref().map(|permit| has_ended(permit).map(Ended::reason));
        assert_live(&sessions, 1);
        drop(permits);
        assert_live(&sessions, 0);
        ended
    });
}

#[test]
fn no_session_outlives_the_revocation_of_its_token_and_the_end_of_its_user() {
    explore(["rejected", "ended"], || {
        let revocations = Revocations::in_memory(LONG).unwrap();
        let tokens = StaticTokens::new([("s3cr3t", USER)]).unwrap();
        let tokens = tokens
            .unless_revoked(&revocations, |user: &&'static str| TokenIdentity::new().id(user));
        let sessions = Sessions::per_claims(1, |user: &&'static str| *user).unwrap();
        let layer = guard().token(TokenPolicy::bearer(tokens)).unwrap().sessions(&sessions);
        let connection = start(move || match enter_with(&layer, handshake("/").token("s3cr3t")) {
            Ok(permit) => {
                assert_eq!(block_on(permit.ended()), Ended::Revoked);
                "ended"
            }
            Err(code) => {
                assert_eq!(code, "token-invalid");
                "rejected"
            }
        });
        now(revocations.revoke_token(USER)).unwrap();
        now(sessions.end(&USER, Ended::Revoked)).unwrap();
        let result = connection.join().unwrap();
        assert_live(&sessions, 0);
        result
    });
}

#[test]
fn a_connection_ends_when_two_reasons_come_at_once() {
    explore_up_to(3, [Ended::Drained.reason(), Ended::Revoked.reason()], || {
        let drain = Drain::new();
        let (sessions, layer) = sessions(1, WhenFull::RejectNewest);
        let permit = enter(&layer.drain(&drain)).unwrap();
        let draining = start(move || drain.start());
        let ending = start(move || now(sessions.end(&USER, Ended::Revoked)).unwrap());
        let ended = block_on(permit.ended());
        draining.join().unwrap();
        assert_eq!(ending.join().unwrap(), 1);
        ended.reason()
    });
}
