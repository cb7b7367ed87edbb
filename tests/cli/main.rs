//! Tests of the program `tenantry`.
#![cfg(test)]
