use super::*;

impl State {
    pub(super) fn load(&self, server: &DatabaseServer) -> ServerLoad {
        let tenants = self.places.values().filter(|p| p.server == server.name).count();
        ServerLoad { server: server.clone(), tenants: u32::try_from(tenants).unwrap_or(u32::MAX) }
    }

    pub(super) fn put_server(
        &mut self, expected: Option<&DatabaseServer>, server: &DatabaseServer,
    ) -> Result<(), StoreError> {
        match (self.servers.get_mut(&server.name), expected) {
            (Some(stored), _) if same(stored, server) => Ok(()),
            (Some(stored), Some(expected)) if same(stored, expected) => {
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
        if self.places.values().any(|p| p.server == *name) {
            return Err(rules::inhabited(name));
        }
        self.servers.remove(name);
        Ok(())
    }

    pub(super) fn reserve(&mut self, place: &Placement) -> Result<(), StoreError> {
        match self.places.get(&place.tenant) {
            Some(stored) if stored == place => return Ok(()),
            Some(stored) => return Err(rules::placed(stored)),
            None => {}
        }
        if self.places.values().any(|p| (&p.server, &p.database) == (&place.server, &place.database)) {
            return Err(StoreError::Taken(NameConflict::Database(place.server.clone(), place.database.clone())));
        }
        let server = self.servers.get(&place.server).ok_or_else(|| rules::no_server(&place.server))?;
        if !rules::has_room(&self.load(server)) {
            return Err(StoreError::Taken(NameConflict::ServerFull(place.server.clone())));
        }
        self.places.insert(place.tenant, place.clone());
        Ok(())
    }
}

fn same(a: &DatabaseServer, b: &DatabaseServer) -> bool {
    *a == DatabaseServer { created_at: a.created_at, ..b.clone() }
}
