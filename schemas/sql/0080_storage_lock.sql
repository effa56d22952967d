-- Held while a process brings compression in line with the settings.
INSERT INTO control_locks (name) VALUES ('storage');
