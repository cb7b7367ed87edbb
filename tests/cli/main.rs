//! Tests of the program `tenantry`: as text, with a database, and after a signal.
//!
//! All tests share one server. Each test with a database has its own landlord and its own installation.
#![cfg(test)]
mod installation;
mod interrupts;
mod secrets;
mod sql;
mod terminal;
mod text;
mod tool;
