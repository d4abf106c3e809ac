use std::num::NonZeroUsize;

use http::Request;
use models::{
    Token, VerifyToken,
    token::ticket::{MemoryTicketStore, Ticket, TicketIssuer, TicketVerifier},
};

use crate::common::{explore, now, start};

fn store(capacity: usize) -> MemoryTicketStore {
    MemoryTicketStore::new(NonZeroUsize::new(capacity).unwrap())
}

fn issue(store: &MemoryTicketStore) -> Ticket {
    now(TicketIssuer::new(store.clone()).issue(&"alice")).unwrap()
}

fn redeem(store: &MemoryTicketStore, ticket: &str) -> bool {
    let (request, ()) = Request::new(()).into_parts();
    let verifier = TicketVerifier::<String, _>::new(store.clone());
    now(verifier.verify(Token::new(ticket), &request)).is_ok()
}

#[test]
fn a_ticket_is_redeemed_once() {
    explore([1], || {
        let store = store(2);
        let ticket = issue(&store);
        let others = [(); 2].map(|()| {
            let (store, ticket) = (store.clone(), ticket.expose().to_owned());
            start(move || redeem(&store, &ticket))
        });
        let mut redeemed = usize::from(redeem(&store, ticket.expose()));
        redeemed += others.map(|other| usize::from(other.join().unwrap())).iter().sum::<usize>();
        assert!(store.is_empty());
        redeemed
    });
}

#[test]
fn a_ticket_is_redeemed_or_evicted() {
    explore([false, true], || {
        let store = store(1);
        let first = issue(&store);
        let redeeming = start({
            let store = store.clone();
            move || redeem(&store, first.expose())
        });
        let second = issue(&store);
        let redeemed = redeeming.join().unwrap();
        assert_eq!(store.len(), 1);
        assert!(redeem(&store, second.expose()));
        assert!(store.is_empty());
        redeemed
    });
}

#[test]
fn a_full_store_stays_full() {
    explore([()], || {
        let store = store(1);
        let issuing = [(); 2].map(|()| {
            let store = store.clone();
            start(move || issue(&store))
        });
        let tickets = issuing.map(|issuing| issuing.join().unwrap());
        let redeemed = tickets.map(|ticket| redeem(&store, ticket.expose()));
        assert_eq!(redeemed.into_iter().filter(|redeemed| *redeemed).count(), 1);
        assert!(store.is_empty());
    });
}

#[test]
fn a_quota_is_never_exceeded() {
    explore([1], || {
        let issuer = TicketIssuer::new(store(4)).quota("alice", 1);
        let other = start({
            let issuer = issuer.clone();
            move || now(issuer.issue(&"alice")).is_ok()
        });
        usize::from(now(issuer.issue(&"alice")).is_ok()) + usize::from(other.join().unwrap())
    });
}
