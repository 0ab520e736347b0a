"""Tables, figures, the report and the viewer."""
