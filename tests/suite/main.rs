//! Integration tests of the crate against a real PostgreSQL, through its public API.
//!
//! All tests share one server (`TestServer::shared`), unless one needs settings of its own. Each test has its own
//! landlord database and its own installation, so tests run in parallel and do not see each other.

#![cfg(test)]

mod admin;
mod archive;
mod auditor;
mod borders;
mod breaks;
mod budget;
mod busy;
mod canary;
mod changes;
mod clean_up;
mod crash;
mod culprit;
mod dead_ends;
mod deadlines;
mod doctor;
mod drop_in;
mod encoding;
mod engine;
mod environment;
mod example_errors;
mod facade;
mod fail_closed;
mod failover;
mod fence;
mod floors;
mod follow_up;
mod handover;
mod host_steps;
mod hostile;
mod input;
mod keys;
mod landlord;
mod lanes;
mod language;
mod leases;
mod lifecycle;
mod limits;
mod listener;
mod migrate;
mod notifications;
mod obstacles;
mod operator_calls;
mod provision;
mod quickstart;
mod races;
mod registry;
mod replicas;
mod require_head;
mod resolver;
mod rotate;
mod schema;
mod schema_changes;
mod seams;
mod servers;
mod settings;
mod setup;
mod takeover;
mod temporary_login;
mod tls;
mod torture_sample;
mod trust;
mod unmanaged;
mod unreadable;
mod web;
