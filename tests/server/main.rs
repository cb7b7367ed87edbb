//! Tests of the test harness itself (`tenantry::testing::TestServer` and its fault proxy): how a server is chosen, what
//! every kind of server guarantees, and that nothing is left behind when its process ends.
//!
//! These tests are a binary of their own, because they kill processes.

#![cfg(test)]

mod child;
mod choice;
mod gone;
mod kept;
mod kinds;
mod proxy;
mod tls;
