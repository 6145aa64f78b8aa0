//! The client against a real server: the one whose NameServer is named by the environment variable
//! `WEIRMQ_TEST_NAMESRV` (`host:port`), Apache's or WeirMQ's. Every test makes topics of its own.

mod administration;
mod consuming;
mod pulling;
mod sending;
mod setup;
