//! The library against a real PostgreSQL: one server for all, a landlord of its own for each test.

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
mod drop_in;
mod engine;
mod facade;
mod fail_closed;
mod failover;
mod fence;
mod floors;
mod host_steps;
mod hostile;
mod keys;
mod landlord;
mod lanes;
mod language;
mod leases;
mod lifecycle;
mod limits;
mod migrate;
mod notifications;
mod obstacles;
mod provision;
mod races;
mod registry;
mod replicas;
mod resolver;
mod rotate;
mod schema;
mod seams;
mod servers;
mod setup;
mod tls;
mod torture_sample;
mod web;
