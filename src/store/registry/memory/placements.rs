//! Servers and placements of [`MemoryRegistry`](super::MemoryRegistry). The caller holds the registry's lock, so each
//! function is atomic.
use super::*;

impl State {
    pub(super) fn load(&self, server: &DatabaseServer) -> ServerLoad {
        let tenants = self.placements.values().filter(|p| p.server == server.name).count();
        ServerLoad { server: server.clone(), tenants: u32::try_from(tenants).unwrap_or(u32::MAX) }
    }

    pub(super) fn placements_on(
        &self, server: &ServerName, after: Option<&DatabaseName>, limit: u32,
    ) -> Vec<Placement> {
        let on_server = self.placements.values().filter(|p| p.server == *server);
        let mut page: Vec<_> = on_server.filter(|p| after.is_none_or(|name| p.database > *name)).cloned().collect();
        page.sort_by(|a, b| a.database.cmp(&b.database));
        page.truncate(limit as usize);
        page
    }

    pub(super) fn put_server(
        &mut self, expected: Option<&DatabaseServer>, server: &DatabaseServer,
    ) -> Result<(), StoreError> {
        match (self.servers.get_mut(&server.name), expected) {
            (Some(stored), _) if is_same(stored, server) => Ok(()),
            (Some(stored), Some(expected)) if is_same(stored, expected) => {
                *stored = DatabaseServer { created_at: stored.created_at, ..server.clone() };
                Ok(())
            }
            (Some(_), _) => Err(rules::other_server()),
            (None, Some(_)) => Err(rules::no_server(&server.name)),
            (None, None) => {
                self.servers.insert(server.name.clone(), server.clone());
                Ok(())
            }
        }
    }

    pub(super) fn remove_server(&mut self, name: &ServerName) -> Result<(), StoreError> {
        if self.placements.values().any(|p| p.server == *name) {
            return Err(rules::server_in_use(name));
        }
        self.servers.remove(name);
        Ok(())
    }

    pub(super) fn reserve(&mut self, placement: &Placement) -> Result<(), StoreError> {
        match self.placements.get(&placement.tenant) {
            Some(stored) if stored == placement => return Ok(()),
            Some(stored) => return Err(rules::already_placed(stored)),
            None => {}
        }
        if self.placements.values().any(|p| (&p.server, &p.database) == (&placement.server, &placement.database)) {
            return Err(StoreError::Taken(NameConflict::Database(
                placement.server.clone(),
                placement.database.clone(),
            )));
        }
        let server = self.servers.get(&placement.server).ok_or_else(|| rules::no_server(&placement.server))?;
        if !rules::has_room(&self.load(server)) {
            return Err(StoreError::Taken(NameConflict::ServerFull(placement.server.clone())));
        }
        self.placements.insert(placement.tenant, placement.clone());
        Ok(())
    }
}

/// Whether two servers are equal apart from `created_at`.
fn is_same(a: &DatabaseServer, b: &DatabaseServer) -> bool {
    *a == DatabaseServer { created_at: a.created_at, ..b.clone() }
}
