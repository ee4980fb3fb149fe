"""Where records lie: `embed` turns texts into unit vectors, `cluster` groups the vectors."""
